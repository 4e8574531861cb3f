"""Programs of the tests that hang: what they were doing is told, and none is left."""

import subprocess
import sys

import programs
import pytest

PARENT = """
import subprocess, sys, time

def waits_for_its_child():
    subprocess.run([sys.executable, "-c", {child!r}])

print("begun", flush=True)
waits_for_its_child()
"""
CHILD = """
import os, sys, threading, time

def holds_a_lock():
    time.sleep(600)

def never_gets_it():
    thread.join()

thread = threading.Thread(target=holds_a_lock)
thread.start()
open({path!r}, "w").write(str(os.getpid()))
never_gets_it()
"""


def test_stacks_of_all_processes_are_told_and_none_is_left(tmp_path):
    path = tmp_path / "pid"
    code = PARENT.format(child=CHILD.format(path=str(path)))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with pytest.raises(AssertionError, match="did not end in 4") as raised:
        programs.run([sys.executable, "-c", code], timeout=4, **pipes)
    said = str(raised.value)
    for place in ("begun", "waits_for_its_child", "holds_a_lock", "never_gets_it"):
        assert place in said
    assert programs.gone(int(path.read_text()))


def test_orphan_that_holds_the_output_is_ended(tmp_path):
    path = tmp_path / "pid"
    child = CHILD.format(path=str(path))
    code = (
        f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}])"
    )
    with pytest.raises(AssertionError, match="ended with 0, but what") as raised:
        programs.run([sys.executable, "-c", code], timeout=4, stderr=subprocess.PIPE)
    assert "never_gets_it" in str(raised.value)
    assert programs.gone(int(path.read_text()))


def test_output_of_a_program_that_ends():
    done = programs.run(
        [sys.executable, "-c", "print('said'); raise SystemExit(3)"],
        timeout=60,
        stdout=subprocess.PIPE,
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "said\n", "")
