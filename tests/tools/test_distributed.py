"""Two CPU processes through dist_train.sh: killed, out of space, resumed."""

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import programs
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
            stalls = str(get_rank()) in os.environ['STALL_RANKS']
            with open(os.path.join(folder, f'rank{get_rank()}'), 'w') as file:
                file.write(str(os.getpid()))
            if stalls:
                time.sleep(600)
"""
FILLING = """
import os

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class FillDiskInThirdEpoch(Hook):
    def before_train_epoch(self, runner):
        if os.environ.get('FILL_DISK') and runner.epoch == 2 and is_main_process():
            disk = os.statvfs(runner.work_dir)
            # Room for a log, not for a checkpoint.
            size = disk.f_bavail * disk.f_frsize - 2**14
            with open(os.path.join(runner.work_dir, 'filler'), 'wb') as file:
                file.write(bytes(size))
"""
PREAMBLE = """
custom_imports = dict(imports=['polynl_mm', 'stalling', 'filling'],
                      allow_failed_imports=False)
custom_hooks = [dict(type='StallInThirdEpoch'), dict(type='FillDiskInThirdEpoch')]
# Without workers a rank meets the loss of the other in a collective, not in a pipe.
train_dataloader.update(num_workers=0, persistent_workers=False)
"""


class Job:
    """A training of three epochs; ranks such as "01" stall in the third until ended."""

    def __init__(
        self, config: Path, work_dir: Path, stall: str, *arguments: str, fill=False
    ):
        self.folder = config.parent / f"pids{time.monotonic_ns()}"
        self.folder.mkdir()
        env = {"PYTHONPATH": str(config.parent)}
        if stall:
            env.update(STALL_FOLDER=str(self.folder), STALL_RANKS=stall)
        if fill:
            env["FILL_DISK"] = "1"
        # From another folder, under paths with spaces, PYTHONPATH kept.
        self.process = programs.start(
            [
                *("bash", TOOLS / "dist_train.sh", config, "2"),
                *("--seed", "7", "--work-dir", work_dir, *arguments),
            ],
            env,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def wait_until_stalled(self) -> list[int]:
        """Return the process ids of the ranks once both are in the third epoch."""
        end = time.monotonic() + DEADLINE
        files = [self.folder / "rank0", self.folder / "rank1"]
        while not all(file.exists() and file.read_text() for file in files):
            assert self.process.poll() is None, self.process.stderr.read()
            assert time.monotonic() < end, "the ranks did not reach the third epoch"
            time.sleep(0.1)
        return [int(file.read_text()) for file in files]

    def finish(self, deadline: float = DEADLINE) -> tuple[int, str]:
        """Return the exit status and stderr, within the deadline in seconds."""
        _, errors = programs.finish(self.process, deadline)
        return self.process.returncode, errors


def wait_until_gone(pids: list[int]) -> None:
    end = time.monotonic() + 20
    while not all(map(programs.gone, pids)):
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
    (folder / "filling.py").write_text(FILLING)
    # The preamble's custom_imports would be overwritten by the tiny config's.
    return tiny_config(folder / "tiny config.py", epochs=3, extra=PREAMBLE)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB."""
    folder = tmp_path / "small disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if (
        shutil.which("mount") is None
        or subprocess.run(command, stderr=subprocess.DEVNULL).returncode
    ):
        pytest.skip("this user may not mount a tmpfs")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def job(stalling_config, tmp_path):
    jobs = []

    def start(*arguments, stall="01", work_dir=tmp_path / "work dir", fill=False):
        jobs.append(Job(stalling_config, work_dir, stall, *arguments, fill=fill))
        return jobs[-1]

    yield start
    for started in jobs:
        with contextlib.suppress(OSError):
            started.process.kill()
        for file in started.folder.glob("rank*"):
            with contextlib.suppress(OSError, ValueError):
                os.kill(int(file.read_text()), signal.SIGKILL)


@pytest.fixture(scope="module")
def whole_run(stalling_config, tmp_path_factory):
    """Return the losses of the third epoch of an uninterrupted run with arguments."""

    @functools.cache
    def run(*arguments: str) -> list[tuple[int, float]]:
        work_dir = tmp_path_factory.mktemp("whole")
        status, errors = Job(stalling_config, work_dir, "", *arguments).finish()
        assert status == 0, errors
        return third_epoch(work_dir)

    return run


@pytest.fixture
def whole(whole_run):
    """The losses of the third epoch of an uninterrupted run."""
    losses = whole_run()
    assert len(losses) == 3
    return losses


@pytest.mark.slow
@pytest.mark.parametrize("sharing", [(), ("--clip-parallel", "2")], ids=["", "clips"])
def test_dead_rank_ends_the_others_and_resuming_repeats_the_run(
    job, whole_run, tmp_path, sharing
):
    whole = whole_run(*sharing)
    work_dir = tmp_path / "killed"
    run = job(*sharing, work_dir=work_dir, stall="1")
    ranks = run.wait_until_stalled()
    time.sleep(2)  # by now, the other one waits for the gradients of rank 1
    os.kill(ranks[1], signal.SIGKILL)
    status, errors = run.finish(60)
    assert status == 1
    assert "rank 1" in errors and "SIGKILL" in errors
    assert "Traceback" not in errors
    wait_until_gone(ranks)
    begun = third_epoch(work_dir)
    assert len(begun) < len(whole) == (6 if sharing else 3)

    status, errors = job(*sharing, "--resume", stall="", work_dir=work_dir).finish()
    assert status == 0, errors
    assert third_epoch(work_dir)[len(begun) :] == whole


@pytest.mark.slow
def test_full_disk_leaves_the_previous_checkpoint(job, whole, small_disk):
    work_dir = small_disk / "work dir"
    status, errors = job(stall="", work_dir=work_dir, fill=True).finish()
    assert status == 2
    said = [line for line in errors.splitlines() if line.startswith("Error: ")]
    assert len(said) == 1 and "Traceback" not in errors, errors
    assert f"could not be written to {work_dir} (No space left on device)" in said[0]
    assert f"{work_dir / 'epoch_2.pth'} is whole" in said[0]
    left = {path.name for path in work_dir.iterdir() if path.is_file()}
    assert left >= {"epoch_2.pth", "filler"} and "epoch_3.pth" not in left
    assert {path.name for path in work_dir.glob(".*")} <= {".running"}
    begun = third_epoch(work_dir)

    (work_dir / "filler").unlink()
    status, errors = job("--resume", stall="", work_dir=work_dir).finish()
    assert status == 0, errors
    assert third_epoch(work_dir)[len(begun) :] == whole
    assert (work_dir / "epoch_3.pth").is_file()


@pytest.mark.slow
def test_ctrl_c_ends_all_ranks(job):
    run = job()
    ranks = run.wait_until_stalled()
    run.process.send_signal(signal.SIGINT)
    status, errors = run.finish()
    assert status == 128 + signal.SIGINT
    assert "Traceback" not in errors
    wait_until_gone(ranks)
