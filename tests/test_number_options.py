"""Numbers of the command line: no tool takes nan or inf where they mean nothing."""

import argparse
import ast
import importlib

import pytest
from conftest import REPO

from polynl_mm.number_options import finite, seconds


def options_of_numbers() -> dict[str, list[tuple[str, str]]]:
    """Return by module the options that take one of these types, and which."""
    found = {}
    for file in sorted((REPO / "polynl_mm").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            for keyword in getattr(node, "keywords", []):
                kind = ast.unparse(keyword.value)
                if keyword.arg == "type" and isinstance(node, ast.Call):
                    assert kind != "float", f"{file.name}: argparse's float takes nan"
                    if kind in ("finite", "seconds"):
                        name = ".".join(file.relative_to(REPO).with_suffix("").parts)
                        option = node.args[-1].value
                        found.setdefault(name, []).append((option, kind))
    return found


OPTIONS = options_of_numbers()
# What each tool cannot do without.
NEEDED = {
    "extract_features": ["c.py", "c.pth", "list.txt", "--window", "1"],
    "predict_timeline": ["c.py", "c.pth", "a.mp4", "--window", "1"],
    "report_accuracy": ["--preds", "a.pkl"],
    "non_local_to_polynl": ["a.pth", "b.pth"],
    "test": ["c.py", "c.pth"],
    "check_videos": ["list.txt"],
    "resize_videos": ["videos", "small"],
    "gpu_report": [],
}
CASES = [(name, *option) for name, options in OPTIONS.items() for option in options]


def test_options_are_found():
    assert {name.rpartition(".")[2] for name in OPTIONS} == set(NEEDED)


@pytest.mark.parametrize("name, option, kind", CASES)
def test_what_is_no_number_is_refused(name, option, kind, capsys):
    parse_args = importlib.import_module(name).parse_args
    needed = NEEDED[name.rpartition(".")[2]]
    good = getattr(parse_args([*needed, option, "1.5"]), option[2:].replace("-", "_"))
    assert good in (1.5, [1.5])
    for value in ("nan", "inf", "1e999", "two", *(["0"] if kind == "seconds" else [])):
        with pytest.raises(SystemExit) as end:
            parse_args([*needed, option, value])
        assert end.value.code == 2
        assert f"needed, not '{value}'" in capsys.readouterr().err


def test_numbers():
    assert finite("-1e-3") == -1e-3 and seconds("2") == 2.0
    for text in ("-1", "-inf", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="more than 0"):
            seconds(text)
