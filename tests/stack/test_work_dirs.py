import os
import subprocess
import sys

import pytest

from polynl_mm.stack import work_dirs
from polynl_mm.stack.work_dirs import hold_work_dir
from polynl_mm.user_errors import UserError

HOLD = """
import sys, time, os
from polynl_mm.stack.work_dirs import hold_work_dir
hold_work_dir(sys.argv[1], resumes=False)
if os.fork() == 0:
    time.sleep(60)  # a data worker that outlives its parent
print("held", flush=True)
time.sleep(60)
"""


def test_two_runs_at_the_same_time(tmp_path):
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert other.stdout.readline() == b"held\n"
        sentence = rf"Another run \(process {other.pid}\) is writing to .*--work-dir"
        with pytest.raises(UserError, match=sentence):
            hold_work_dir(str(tmp_path / "run"), resumes=True)
        other.kill()
        other.wait()
        hold_work_dir(str(tmp_path / "run"), resumes=True)
    finally:
        os.killpg(other.pid, 9)


def test_other_ranks_of_a_run_are_let_in(tmp_path, monkeypatch):
    hold_work_dir(str(tmp_path), resumes=False)
    monkeypatch.setenv("RANK", "1")
    hold_work_dir(str(tmp_path), resumes=False)


def test_checkpoints_of_an_earlier_run_are_named(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(work_dirs, "print_log", lambda text, **_: said.append(text))
    (tmp_path / "epoch_3.pth").touch()
    hold_work_dir(str(tmp_path), resumes=True)
    assert not said
    hold_work_dir(str(tmp_path), resumes=False)
    assert "holds checkpoints of an earlier run (such as epoch_3.pth)" in said[0]


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be written to .*--work-dir"):
        hold_work_dir(str(tmp_path / "file" / "run"), resumes=False)


def test_half_written_files_of_dead_processes_are_removed(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    names = [
        f".epoch_1.{dead.pid}-0a1b2c.part.pth",
        f"vis/.scalars.{dead.pid}-0a1b2c.part.json",
        f".config.{os.getpid()}-0a1b2c.part.py",  # being written
        f".mine.{dead.pid}.part.pth",  # of nobody we know
    ]
    (tmp_path / "vis").mkdir()
    for name in names:
        (tmp_path / name).touch()
    hold_work_dir(str(tmp_path), resumes=True)
    assert [(tmp_path / name).exists() for name in names] == [False, False, True, True]
