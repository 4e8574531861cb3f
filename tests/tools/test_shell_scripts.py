"""What the shell scripts start, seen by stand-ins for python and srun."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
SHOW = """#!/usr/bin/env bash
printf '%s\\n' "$@"
echo "OMP=$OMP_NUM_THREADS PYTHONPATH=$PYTHONPATH"
echo "PORT=${MASTER_PORT:-}"
"""


@pytest.fixture
def run(tmp_path):
    """Return a function that runs a script and gives its lines of output."""
    for name in ("python", "srun"):
        (tmp_path / name).write_text(SHOW)
        (tmp_path / name).chmod(0o755)

    def start(script, *arguments, status=0, **env):
        dropped = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "PORT", "NNODES", "PYTHON")
        dropped += ("PYTHONPATH", "VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV")
        dropped += ("POLYNL_ENV", "MASTER_ADDR", "MASTER_PORT")
        kept = {k: v for k, v in os.environ.items() if k not in dropped}
        done = subprocess.run(
            ["bash", TOOLS / script, *arguments],
            env={**kept, "PATH": f"{tmp_path}:{os.environ['PATH']}", **env},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == status, done.stderr
        return (done.stdout + done.stderr).splitlines()

    return start


def test_dist_train_on_one_machine(run):
    said = run("dist_train.sh", "my config.py", "2", "--seed", "1", PYTHON="python")
    assert said[:5] == [
        str(TOOLS / "launch.py"),
        "--standalone",
        "--nproc_per_node=2",
        str(TOOLS / "train.py"),
        "my config.py",
    ]
    assert said[5:9] == ["--launcher", "pytorch", "--seed", "1"]
    threads = max(1, len(os.sched_getaffinity(0)) // 2)
    assert said[9] == f"OMP={threads} PYTHONPATH={TOOLS.parent}"


def test_dist_test_on_two_machines(run):
    env = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "first", "PORT": "1234"}
    keep = {"OMP_NUM_THREADS": "3", "PYTHONPATH": "mine", "VIRTUAL_ENV": "active"}
    said = run("dist_test.sh", "c.py", "e.pth", "8", **env, **keep)
    assert said[1:6] == [
        "--nnodes=2",
        "--node_rank=1",
        "--master_addr=first",
        "--master_port=1234",
        "--nproc_per_node=8",
    ]
    assert said[6:] == [
        str(TOOLS / "test.py"),
        "c.py",
        "e.pth",
        "--launcher",
        "pytorch",
        f"OMP=3 PYTHONPATH={TOOLS.parent}:mine",
        "PORT=",
    ]
    said = run("dist_train.sh", "c.py", "8", status=2, NNODES="2")
    assert len(said) == 1 and said[0].startswith("Error: NNODES=2 needs MASTER_ADDR")


def test_slurm(run):
    env = {"GPUS": "16", "GPUS_PER_NODE": "4", "SRUN_ARGS": "--time 1", "PYTHON": "py"}
    said = run("slurm_train.sh", "part", "name", "a b.py", "--amp", **env)
    assert said[:3] == ["-p", "part", "--job-name=name"]
    for argument in ("--ntasks=16", "--gres=gpu:4", "--ntasks-per-node=4"):
        assert argument in said
    start = said.index("py")
    assert said[start - 3 : start] == ["--kill-on-bad-exit=1", "--time", "1"]
    assert said[start + 1 : start + 7] == [
        "-u",
        str(TOOLS / "train.py"),
        "a b.py",
        "--launcher",
        "slurm",
        "--amp",
    ]
    said = run("slurm_test.sh", "p", "n", "c.py", "e.pth", GPUS="2", GPUS_PER_NODE="0")
    assert not [argument for argument in said if "gres" in argument]
    assert str(TOOLS / "test.py") in said and "e.pth" in said


def test_slurm_takes_the_port_it_is_given(run):
    arguments = ("slurm_train.sh", "p", "n", "c.py")
    assert run(*arguments, PORT="1234", PYTHON="py")[-1] == "PORT=1234"
    both = {"PORT": "1234", "MASTER_PORT": "99", "PYTHON": "py"}
    assert run(*arguments, **both)[-1] == "PORT=99"
    assert 12000 <= int(run(*arguments, PYTHON="py")[-1].removeprefix("PORT=")) < 32000


@pytest.mark.parametrize(
    ("env", "chosen"),
    [
        ({}, "venv"),
        ({"VIRTUAL_ENV": "/mine"}, "python"),
        ({"POLYNL_ENV": "active"}, "python"),
        ({"CONDA_PREFIX": "/conda/envs/mine", "CONDA_DEFAULT_ENV": "mine"}, "python"),
        ({"CONDA_PREFIX": "/conda", "CONDA_DEFAULT_ENV": "base"}, "venv"),
        ({"PYTHON": "python", "POLYNL_ENV": ""}, "python"),
    ],
    ids=["none", "venv", "active", "conda", "conda-base", "PYTHON"],
)
def test_active_environment_goes_before_the_venv(tmp_path, env, chosen):
    shutil.copytree(TOOLS, tmp_path / "tools")
    for says, folder in {"python": "bin", "venv": ".venv/bin"}.items():
        folder = tmp_path / folder
        folder.mkdir(parents=True)
        (folder / "python").write_text(f"#!/bin/sh\necho {says}\n")
        (folder / "python").chmod(0o755)
    done = subprocess.run(
        ["bash", tmp_path / "tools" / "dist_train.sh", "c.py", "1"],
        env={"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", **env},
        capture_output=True,
        text=True,
    )
    assert done.stdout == f"{chosen}\n", done.stderr


def test_unfit_arguments(run):
    assert "Usage" in run("dist_train.sh", "c.py", status=2)[0]
    assert "Usage" in run("dist_test.sh", "c.py", "2", status=2)[0]
    assert "not 'two'" in run("dist_train.sh", "c.py", "two", status=2)[0]
    assert "Usage" in run("slurm_train.sh", "p", status=2)[0]
