"""The tools where something of the stack is missing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("name", "missing", "sentence"),
    [
        ("train", "mmengine", "Error: polynl_mm needs MMEngine, which is not"),
        ("test", "mmengine", "Error: polynl_mm needs MMEngine, which is not"),
        ("predict", "mmengine", "Error: polynl_mm needs MMEngine, which is not"),
        ("quickstart", "mmengine", "Error: polynl_mm needs MMEngine, which is not"),
        ("train", "torch", "Error: polynl_mm needs PyTorch, which is not"),
        ("launch", "torch", "Error: polynl_mm needs PyTorch, which is not"),
        ("train", "polynl_mm", "Error: polynl_mm is not installed in "),
    ],
)
def test_missing_package_is_said_in_one_sentence(tmp_path, name, missing, sentence):
    (tmp_path / "sitecustomize.py").write_text(
        f"import sys\nsys.modules[{missing!r}] = None\n"
    )
    done = subprocess.run(
        [sys.executable, str(REPO / "tools" / f"{name}.py")],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{REPO}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(sentence) and done.stderr.count("\n") == 1
