"""What the shell scripts start, seen by stand-ins for python and srun."""

import os
import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
SHOW = """#!/usr/bin/env bash
printf '%s\\n' "$@"
echo "OMP=$OMP_NUM_THREADS PYTHONPATH=$PYTHONPATH"
"""


@pytest.fixture
def run(tmp_path):
    """Return a function that runs a script and gives its lines of output."""
    for name in ("python", "srun"):
        (tmp_path / name).write_text(SHOW)
        (tmp_path / name).chmod(0o755)

    def start(script, *arguments, status=0, **env):
        dropped = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "PORT", "NNODES", "PYTHON")
        dropped += ("PYTHONPATH", "VIRTUAL_ENV")
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
    ]


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


def test_unfit_arguments(run):
    assert "Usage" in run("dist_train.sh", "c.py", status=2)[0]
    assert "Usage" in run("dist_test.sh", "c.py", "2", status=2)[0]
    assert "not 'two'" in run("dist_train.sh", "c.py", "two", status=2)[0]
    assert "Usage" in run("slurm_train.sh", "p", status=2)[0]
