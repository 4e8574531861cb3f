"""What starting costs: tools say their options without torch, the package is light."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import polynl_mm
from polynl_mm import __main__ as front
from polynl_mm import registered, tool_start

REPO = Path(__file__).resolve().parents[1]
TOOLS = {n: f for n, f in front.find_tools().items() if f.suffix == ".py"}
NAMES_MODULES = "import sys; print('loaded:', *sorted(sys.modules))"
# Says at exit what is loaded, in every Python that has it on its path.
AT_EXIT = """import atexit, sys
atexit.register(lambda: print('loaded:', *sys.modules))
"""


def run(*command, folder=None, **env) -> subprocess.CompletedProcess:
    path = os.pathsep.join(filter(None, (str(folder or ""), str(REPO))))
    return subprocess.run(
        [sys.executable, *map(str, command)],
        env={**os.environ, "PYTHONPATH": path, **env},
        capture_output=True,
        text=True,
    )


def loaded(done: subprocess.CompletedProcess) -> set[str]:
    (line,) = [x for x in done.stdout.splitlines() if x.startswith("loaded:")]
    return set(line.split()[1:])


@pytest.fixture(scope="module")
def at_exit(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(AT_EXIT)
    return folder


@pytest.mark.parametrize("name", TOOLS)
def test_help_comes_without_torch(at_exit, name):
    done = run("-W", "default", TOOLS[name], "--help", folder=at_exit)
    assert done.returncode == 0 and done.stderr == ""
    assert "usage: " in done.stdout
    assert not loaded(done) & {"torch", "mmengine", "mmcv"}


def test_misspelt_option_comes_without_torch(at_exit):
    done = run(TOOLS["train"], "c.py", "--work-dri", "w", folder=at_exit)
    assert done.returncode == 2 and "--work-dri" in done.stderr
    assert "torch" not in loaded(done)


def test_front_of_all_tools_does_not_wait_either(at_exit):
    done = run("-m", "polynl_mm", "train", "--help", folder=at_exit)
    assert done.returncode == 0 and done.stderr == ""
    assert "usage: " in done.stdout and "torch" not in loaded(done)


def test_package_imports_no_more_than_mmcv():
    """mmcv.cnn has MMEngine's optimizers, runner and, through them, FSDP."""
    plain = loaded(run("-c", f"import torch, mmcv.cnn; {NAMES_MODULES}"))
    ours = loaded(run("-c", f"import polynl_mm; {NAMES_MODULES}"))
    more = {x for x in ours - plain if re.match(r"(torch|mmengine|mmcv)\b", x)}
    assert not {x for x in more if not x.startswith("mmengine.analysis")}
    assert not {x for x in ours if x.split(".")[0] in ("mmaction", "matplotlib")}


def test_import_registers_and_says_nothing():
    done = run(
        "-c",
        "import polynl_mm\nfrom mmengine.registry import MODELS\n"
        "print(*[name for name in polynl_mm.__all__ if name in MODELS])",
    )
    assert done.stderr == ""
    expected = [name for name in polynl_mm.__all__ if re.search(r"[23]d$", name)]
    assert set(expected) | {"WithPlugins"} == set(done.stdout.split())
    assert len(expected) == 20


@pytest.mark.parametrize(
    "way", ["from polynl_mm import PolyNL3d", "polynl_mm.register()"]
)
def test_tool_registers_when_it_has_read_its_command_line(way):
    """Names are there from the start, too, though nothing is imported for them."""
    code = (
        "import sys\n"
        "sys.argv = ['-m', 'train']\n"
        "sys.orig_argv = [sys.executable, '-m', 'polynl_mm', 'train']\n"
        "import polynl_mm\n"
        "assert 'torch' not in sys.modules and 'PolyNL3d' in dir(polynl_mm)\n"
        f"{way}\n"
        "from mmengine.registry import MODELS\n"
        "assert MODELS.get('PolyNL3d') is polynl_mm.PolyNL3d\n"
    )
    done = run("-c", code)
    assert done.returncode == 0, done.stderr


def test_every_name_is_there():
    for name in polynl_mm.__all__:
        assert getattr(polynl_mm, name) is not None, name
        assert name == "register" or name in vars(registered)
    assert set(polynl_mm.__all__) <= set(dir(polynl_mm))
    with pytest.raises(AttributeError, match="has no attribute 'PolyNL4d'"):
        polynl_mm.PolyNL4d  # noqa: B018


def test_own_programs_are_no_tools(tmp_path, monkeypatch):
    """Nor is what a user puts beside the tools, which does not register by itself."""
    tools = tmp_path / "tools"
    tools.mkdir()
    monkeypatch.setattr(tool_start, "TOOLS", tools)
    main = sys.modules["__main__"]
    import_main = "from polynl_mm.commands.train import main\n"
    for file, text, expected in (
        (tools / "train.py", import_main, True),
        (tools / "mine.py", "import polynl_mm\n", False),
        (tmp_path / "train.py", import_main, False),
    ):
        file.write_text(text)
        monkeypatch.setattr(main, "__file__", str(file), raising=False)
        assert tool_start.is_tool() is expected
