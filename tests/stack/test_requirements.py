"""``import polynl_mm`` in folders that hold more and more of the stack."""

import importlib.util
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
PIECES = {"packaging": None, "torch": "2.13.0", "mmengine": "0.10.7"}
PIECES |= {"mmcv": "2.1.0", "mmaction": "1.2.0", "importlib_metadata": None}
DISTRIBUTIONS = {"mmcv": "mmcv-lite", "mmaction": "mmaction2"}


def import_with(folder: Path, **versions: str | None) -> str:
    """Return what ``check_requirements`` says where only these modules are found."""
    folder.mkdir(exist_ok=True)
    for module, version in versions.items():
        if module == "packaging":
            source = Path(importlib.util.find_spec("packaging").origin).parent
            os.symlink(source, folder / module)
            continue
        (folder / module).mkdir()
        (folder / module / "__init__.py").touch()
        if version is not None:
            name = DISTRIBUTIONS.get(module, module)
            info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(
                f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            )
    # -S: without the site-packages of this environment.
    code = f"import sys; sys.path[:0] = [{str(folder)!r}, {str(REPO)!r}]\n"
    code += "from polynl_mm.stack.requirements import check_requirements"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True
    )
    assert done.returncode == 1
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"torch": ...}, "needs PyTorch, which is not installed: pip install"),
        ({"torch": "2.1.0"}, 'torch >= 2.5 .* but 2.1.0 .*: pip install "torch>=2.5"'),
        ({"mmengine": ...}, "needs MMEngine, .*: pip install"),
        ({"mmengine": "0.7.0"}, "mmengine >= 0.10, < 1.0, but 0.7.0"),
        ({"mmcv": ...}, "mmcv or mmcv-lite, and neither .*: pip install"),
        ({"mmcv": "2.2.0"}, "mmcv-lite >= .*, < 2.2.0 only, but 2.2.0"),
        ({"mmcv": "1.7.0"}, "mmcv-lite >= .*, but 1.7.0"),
        ({"mmaction": "0.24.0"}, "mmaction2 >= 1.2, < 1.3, but 0.24.0"),
        ({"importlib_metadata": ...}, "pip install importlib_metadata"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_import_says_what_is_missing_or_unfit(tmp_path, changes, sentence):
    wanted = {**PIECES, **changes}
    there = {name: version for name, version in wanted.items() if version is not ...}
    last = import_with(tmp_path / "site", **there)
    assert last.startswith("ImportError: ")
    import re

    assert re.search(sentence, last), last


def test_fork_of_mmcv_is_to_be_replaced(tmp_path, monkeypatch):
    monkeypatch.setitem(DISTRIBUTIONS, "mmcv", "onedl-mmcv")
    last = import_with(tmp_path / "site", **(PIECES | {"mmcv": "2.3.6"}))
    assert "onedl-mmcv >=" in last and "2.3.6 is installed" in last
    assert last.endswith('pip uninstall onedl-mmcv, and pip install "mmcv-lite==2.1.0"')


def test_this_environment_is_fit():
    import polynl_mm.stack

    polynl_mm.stack.check_requirements()
    assert metadata.version("mmaction2")
