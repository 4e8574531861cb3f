"""Two CPU processes through dist_train.sh: killed, interrupted, resumed."""

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"

DEADLINE = 90
STALLING = """
import os
import time

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class StallInThirdEpoch(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        folder = os.environ.get('STALL_FOLDER')
        if folder and runner.epoch == 2 and batch_idx == 1:
            with open(os.path.join(folder, f'rank{get_rank()}'), 'w') as file:
                file.write(str(os.getpid()))
            time.sleep(600)
"""
PREAMBLE = """
custom_imports = dict(imports=['polynl_mm', 'stalling'], allow_failed_imports=False)
custom_hooks = [dict(type='StallInThirdEpoch')]
"""


class Job:
    """A training of three epochs that stalls in the third until it is ended."""

    def __init__(self, config: Path, work_dir: Path, stall: bool, *arguments: str):
        self.folder = config.parent / f"pids{time.monotonic_ns()}"
        self.folder.mkdir()
        env = {**os.environ, "PYTHONPATH": str(config.parent)}
        if stall:
            env["STALL_FOLDER"] = str(self.folder)
        # From another folder, under paths with spaces, PYTHONPATH kept.
        self.process = subprocess.Popen(
            [
                "bash",
                str(TOOLS / "dist_train.sh"),
                str(config),
                "2",
                "--seed",
                "7",
                "--work-dir",
                str(work_dir),
                *arguments,
            ],
            cwd=self.folder,
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_until_stalled(self) -> list[int]:
        """Return the process ids of the ranks once both stall."""
        end = time.monotonic() + DEADLINE
        files = [self.folder / "rank0", self.folder / "rank1"]
        while not all(file.exists() and file.read_text() for file in files):
            assert self.process.poll() is None, self.process.stderr.read()
            assert time.monotonic() < end, "the ranks did not reach the third epoch"
            time.sleep(0.1)
        return [int(file.read_text()) for file in files]

    def finish(self) -> tuple[int, str]:
        """Return the exit status and stderr, within the deadline."""
        _, errors = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, errors


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] == "Z"
    except OSError:
        return True


def wait_until_gone(pids: list[int]) -> None:
    end = time.monotonic() + 20
    while not all(map(gone, pids)):
        assert time.monotonic() < end, f"still alive: {pids}"
        time.sleep(0.1)


def third_epoch(work_dir: Path) -> list[float]:
    losses = []
    for file in sorted(work_dir.glob("*/vis_data/scalars.json")):
        for line in file.read_text().splitlines():
            record = json.loads(line)
            if record.get("epoch") == 3 and "loss" in record:
                losses.append((record["iter"], record["loss"]))
    return losses


@pytest.fixture(scope="module")
def stalling_config(tiny_config, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("two ranks")
    (folder / "stalling.py").write_text(STALLING)
    # The preamble's custom_imports would be overwritten by the tiny config's.
    return tiny_config(folder / "tiny config.py", epochs=3, extra=PREAMBLE)


@pytest.fixture
def job(stalling_config, tmp_path):
    jobs = []

    def start(*arguments, stall=True, work_dir=tmp_path / "work dir"):
        jobs.append(Job(stalling_config, work_dir, stall, *arguments))
        return jobs[-1]

    yield start
    for started in jobs:
        with contextlib.suppress(OSError):
            started.process.kill()
        for file in started.folder.glob("rank*"):
            with contextlib.suppress(OSError, ValueError):
                os.kill(int(file.read_text()), signal.SIGKILL)


@pytest.mark.slow
def test_resumed_run_equals_uninterrupted_one(job, tmp_path):
    work_dir = tmp_path / "killed"
    killed = job(work_dir=work_dir)
    ranks = killed.wait_until_stalled()
    for pid in [killed.process.pid, *ranks]:
        os.kill(pid, signal.SIGKILL)
    killed.finish()
    wait_until_gone(ranks)
    assert (work_dir / "epoch_2.pth").is_file()
    begun = third_epoch(work_dir)

    resumed = job("--resume", stall=False, work_dir=work_dir)
    status, errors = resumed.finish()
    assert status == 0, errors
    whole = job(stall=False, work_dir=tmp_path / "whole")
    status, errors = whole.finish()
    assert status == 0, errors

    expected = third_epoch(tmp_path / "whole")
    assert len(expected) == 3
    assert third_epoch(work_dir)[len(begun) :] == expected


@pytest.mark.slow
def test_dead_rank_ends_the_others(job):
    run = job()
    ranks = run.wait_until_stalled()
    os.kill(ranks[1], signal.SIGKILL)
    status, errors = run.finish()
    assert status == 1
    assert "rank 1" in errors and "SIGKILL" in errors
    assert "Traceback" not in errors
    wait_until_gone(ranks)


@pytest.mark.slow
def test_ctrl_c_ends_all_ranks(job):
    run = job()
    ranks = run.wait_until_stalled()
    run.process.send_signal(signal.SIGINT)
    status, errors = run.finish()
    assert status == 128 + signal.SIGINT
    assert "Traceback" not in errors
    wait_until_gone(ranks)
