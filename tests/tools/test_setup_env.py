"""What setup_env.sh installs and keeps, seen by a stand-in for python."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
# Makes a venv of itself, writes down what pip is asked for, is python otherwise.
PYTHON = """#!/usr/bin/env bash
case "$*" in
    "-m venv"*) mkdir -p "${@: -1}/bin" && cp "$0" "${@: -1}/bin/python" ;;
    "-m pip --version") ;;
    "-m pip config list") echo "${PIP_CONFIG:-global.timeout='9'}" ;;
    "-m pip install"*--index-url*) echo "${@:7}" >> "$PIP_LOG"; exit "${NO_INDEX:-0}" ;;
    "-m pip install"*) echo "${@:7}" >> "$PIP_LOG"; exit "${PIP_STATUS:-0}" ;;
    *"import torch"*)
        [ -z "${NO_TORCH:-}" ] || echo "OSError: libcudart is lost" >&2
        exit "${NO_TORCH:-0}" ;;
    *) exec "$REAL_PYTHON" "$@" ;;
esac
"""
# Makes distributions invisible, as if another one provided their module.
SITE = """
import importlib.metadata, os
original = importlib.metadata.distribution
def distribution(name):
    if name in os.environ["HIDDEN"].split():
        raise importlib.metadata.PackageNotFoundError(name)
    return original(name)
importlib.metadata.distribution = distribution
"""


class Checkout:
    def __init__(self, folder):
        self.root = folder / "a checkout"
        (self.root / "tools").mkdir(parents=True)
        shutil.copytree(REPO / "requirements", self.root / "requirements")
        for name in ("setup.py", "pyproject.toml", "tools/setup_env.sh"):
            shutil.copy(REPO / name, self.root / name)
        self.bin = folder / "bin"
        self.bin.mkdir()
        for name in ("python", "python3"):  # never the real pip
            self.add(name, PYTHON)
        self.log = folder / "pip.log"

    def add(self, name, text):
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def set_up(self, *groups, status=0, **env):
        """Run set_up_environment; return what pip was asked for and what was said."""
        self.log.write_text("")
        script = '. "$0/tools/setup_env.sh"; set_up_environment "$@"; echo "$PYTHON"'
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script, str(self.root), *groups],
            env={
                "PATH": f"{self.bin}:{os.environ['PATH']}",
                "PIP_LOG": str(self.log),
                "REAL_PYTHON": sys.executable,
                **env,
            },
            capture_output=True,
            text=True,
        )
        assert done.returncode == status, done.stderr
        return self.log.read_text().splitlines(), done.stdout + done.stderr


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


def test_bare_clone_gets_everything_and_the_second_time_nothing(checkout):
    asked, said = checkout.set_up(NO_TORCH="1")
    assert asked[0].endswith("torch==2.13.0")
    for pin in ("mmengine==", "mmcv-lite==", "mmaction2==", "decord==", "matplotlib"):
        assert f" {pin}" in f" {asked[1]}"
    assert asked[1].endswith(f"-e {checkout.root}") and "torch==" not in asked[1]
    assert said.splitlines()[-1] == f"{checkout.root}/.venv/bin/python"
    assert checkout.set_up()[0] == []


@pytest.mark.skipif(sys.platform != "linux", reason="other builds have no CUDA")
@pytest.mark.parametrize("source", ["index-url", "find-links", None])
@pytest.mark.parametrize("gpu", [False, True])
def test_torch_without_cuda_where_there_is_no_gpu(checkout, gpu, source):
    if shutil.which("nvidia-smi") or shutil.which("rocm-smi"):
        pytest.skip("this machine has a GPU")
    if gpu:
        checkout.add("nvidia-smi", "#!/bin/sh")
    # What the user has set wins: a mirror may have no other index behind it.
    set_by_user = {"PIP_CONFIG": f"global.{source}='somewhere'"} if source else {}
    asked, _ = checkout.set_up(NO_TORCH="1", **set_by_user)
    cpu_only = "--retries 1 --index-url https://download.pytorch.org/whl/cpu "
    expected = "" if gpu or source else cpu_only
    assert asked[0] == f"{expected}torch==2.13.0"
    assert "--index-url" not in asked[1]


@pytest.mark.skipif(sys.platform != "linux", reason="other builds have no CUDA")
def test_index_of_pytorch_out_of_reach(checkout):
    if shutil.which("nvidia-smi") or shutil.which("rocm-smi"):
        pytest.skip("this machine has a GPU")
    asked, _ = checkout.set_up(NO_TORCH="1", NO_INDEX="1")
    assert "--index-url" in asked[0] and asked[1] == "torch==2.13.0"


def test_long_settings_of_pip_are_read_whole(checkout):
    settings = "\n".join(["global.find-links='here'", *["global.x='y'"] * 20_000])
    asked, _ = checkout.set_up(NO_TORCH="1", PIP_CONFIG=settings[:100_000])
    assert "--index-url" not in asked[0]


def test_present_torch_is_kept(checkout):
    asked, _ = checkout.set_up()
    assert len(asked) == 1 and "torch==" not in asked[0]


def test_tests_come_on_top(checkout):
    assert "pytest>=8" not in checkout.set_up()[0][0]
    assert " ruff==" in checkout.set_up("tests")[0][0]
    assert checkout.set_up("tests")[0] == []


def test_failed_installation_is_done_again(checkout):
    asked, said = checkout.set_up(status=1, PIP_STATUS="1")
    assert asked and said.splitlines()[-1].startswith("Error: pip could not install")
    assert checkout.set_up()[0] == asked


def test_changed_requirements_are_installed(checkout):
    checkout.set_up()
    with open(checkout.root / "requirements" / "stack.txt", "a") as file:
        file.write("another==1.0\n")
    assert " another==1.0 " in checkout.set_up()[0][0]


def test_venv_that_does_not_run_is_made_again(checkout):
    checkout.set_up()
    (checkout.root / ".venv" / "bin" / "python").write_text("exit 1")
    (checkout.root / ".venv" / "half").touch()
    assert "Environment: .venv, with Python 3." in checkout.set_up()[1]
    assert not (checkout.root / ".venv" / "half").exists()


def test_creation_that_was_interrupted_is_done_again(checkout):
    for name in ("python", "python3"):
        checkout.add(name, PYTHON.replace("mkdir -p", "exit 130; mkdir -p"))
    _, said = checkout.set_up(status=1)
    assert said.splitlines()[-1].startswith("Error: 'python3 -m venv' does not work")
    for name in ("python", "python3"):
        checkout.add(name, PYTHON)
    assert checkout.set_up()[0]


def test_foreign_venv_that_does_not_run_is_left_alone(checkout):
    theirs = checkout.root / ".venv" / "bin" / "python"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("exit 1")
    asked, said = checkout.set_up(status=1)
    assert asked == [] and theirs.read_text() == "exit 1"
    assert said.startswith("Error: ") and "move it away" in said
    assert said.count("\n") == 1


def test_active_environment_keeps_what_it_has(checkout):
    asked, said = checkout.set_up(POLYNL_ENV="active")
    assert asked == [f"matplotlib>=3.8 -e {checkout.root}"]
    assert not (checkout.root / ".venv").exists()
    assert "python" in said.splitlines()[-1]


def test_broken_package_of_the_active_environment_is_not_replaced(checkout, tmp_path):
    package = tmp_path / "site" / "mmcv"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise OSError('two\\nlibGL is lost')")
    env = {"POLYNL_ENV": "active", "PYTHONPATH": str(package.parent)}
    asked, said = checkout.set_up(status=1, **env)
    assert asked == []
    assert said.splitlines()[-1] == (
        "Error: mmcv is in the active environment but cannot be imported: OSError: "
        "libGL is lost"
    )
    # What is about to be installed may be missing.
    (package / "__init__.py").write_text(
        "raise ModuleNotFoundError(name='pytest_to_come')"
    )
    with open(checkout.root / "requirements" / "stack.txt", "a") as file:
        file.write("pytest_to_come\n")
    asked, _ = checkout.set_up(**env)
    assert "mmcv" not in asked[0] and "pytest_to_come" in asked[0]


def test_broken_torch_of_the_active_environment_is_not_replaced(checkout):
    asked, said = checkout.set_up(status=1, POLYNL_ENV="active", NO_TORCH="1")
    assert asked == []
    assert said == (
        "Error: torch is in the active environment but does not work: "
        "OSError: libcudart is lost\n"
    )


def test_full_mmcv_in_the_venv_is_kept(checkout, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITE)
    env = {"PYTHONPATH": str(tmp_path / "site"), "HIDDEN": "mmcv-lite"}
    asked, _ = checkout.set_up(**env)
    assert "mmcv-lite" not in asked[0] and "mmengine==" in asked[0]


def test_fork_of_mmengine_is_kept(checkout, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITE)
    env = {"PYTHONPATH": str(tmp_path / "site"), "HIDDEN": "mmengine"}
    asked, _ = checkout.set_up(**env)
    assert not {"mmengine==0.10.7", "mmcv-lite==2.1.0"} & set(asked[0].split())
    assert asked[1] == "--no-deps mmcv-lite==2.1.0"


def test_next_python_is_tried_when_the_first_does_not_run(checkout):
    checkout.add("python3", "#!/usr/bin/env bash\nexit 127\n")
    checkout.add("python3.12", PYTHON)
    assert checkout.set_up()[0]


def test_no_python_is_said_in_one_sentence(checkout):
    for name in ("python3", "python3.12", "python3.11", "python3.10", "python"):
        checkout.add(name, "#!/usr/bin/env bash\nexit 127\n")
    _, said = checkout.set_up(status=1)
    assert said.startswith("Error: Python 3.10, 3.11 or 3.12 is needed")
    _, said = checkout.set_up(status=1, POLYNL_ENV="active")
    assert said.startswith("Error: POLYNL_ENV=active needs an active Python")


def test_unknown_environment_is_refused(checkout):
    _, said = checkout.set_up(status=1, POLYNL_ENV="conda")
    assert said == "Error: POLYNL_ENV must be 'active' or unset, not 'conda'.\n"
