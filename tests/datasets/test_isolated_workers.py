"""Processes that crash, hang or lose their parent."""

import contextlib
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import time
from multiprocessing import connection
from pathlib import Path

import pytest

from polynl_mm.datasets import isolated_workers
from polynl_mm.datasets.isolated_workers import run_isolated
from polynl_mm.user_errors import UserError


def sleep(path):
    path.write_text(str(os.getpid()))
    time.sleep(600)


def let_sleep(paths):
    for _ in run_isolated(sleep, paths, len(paths), 600):
        pass


def work(item):
    if item % 10 == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if item % 10 == 5:
        raise ValueError(f"five in {item}")
    os.write(1, b"not to be seen")  # past sys.stdout, as decoders do
    return item, os.getpid()


@pytest.mark.parametrize("jobs", [1, 4])
def test_every_item_has_its_outcome(jobs, capfd):
    outcomes = {x.item: x for x in run_isolated(work, range(40), jobs, 60)}
    assert sorted(outcomes) == list(range(40))
    processes = set()
    for item, outcome in outcomes.items():
        if item % 10 == 3:
            assert outcome.failure == "crashed its process (SIGKILL)"
        elif item % 10 == 5:
            assert outcome.failure == f"ValueError: five in {item}"
        else:
            assert not outcome.failure and outcome.value[0] == item
            processes.add(outcome.value[1])
    assert len(processes) <= jobs + 4  # only those that crashed were replaced
    assert capfd.readouterr().out == ""


def test_each_item_alone_has_a_process_that_did_nothing_else():
    outcomes = list(run_isolated(work, [0, 1, 2, 4, 6, 7], 2, 60, True))
    assert len({outcome.value[1] for outcome in outcomes}) == 6
    assert not multiprocessing.active_children()


def test_all_processes_end_with_the_run():
    outcomes = run_isolated(work, range(3), 3, 60)
    process = next(outcomes).value[1]
    outcomes.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_ctrl_c_at_any_moment_leaves_nothing_to_wait_for():
    """As a signal does it: between any two lines that the run goes through."""
    files = [isolated_workers.__file__, connection.__file__]

    def interrupted_at(moment):
        """Return whether the run had come that far."""
        lines = itertools.count()

        def trace(frame, event, argument):
            if frame.f_code.co_filename not in files or frame.f_code.co_name == "stop":
                return None
            if event == "line" and next(lines) == moment:
                raise KeyboardInterrupt
            return trace

        def make():
            sys.settrace(trace)
            with contextlib.suppress(KeyboardInterrupt):
                list(run_isolated(work, (1, 2, 4), 2, 60))
            sys.settrace(None)

        run = threading.Thread(target=make, daemon=True)
        run.start()
        run.join(20)
        assert not run.is_alive(), f"waits without end, interrupted at line {moment}"
        return next(lines) > moment

    moments = range(0, 1000, 5)
    reached = list(itertools.takewhile(interrupted_at, moments))
    assert 10 < len(reached) < len(moments)
    for child in multiprocessing.active_children():  # interrupted while it was started
        child.kill()


def test_what_cannot_work():
    with pytest.raises(UserError, match="-j must be"):
        list(run_isolated(work, [1], 0, 60))
    with pytest.raises(UserError, match="--timeout must be"):
        list(run_isolated(work, [1], 1, float("nan")))


def test_any_time_may_be_given():
    (outcome,) = run_isolated(work, [1], 1, 1e300)
    assert not outcome.failure


def test_workers_end_when_the_run_is_killed(tmp_path):
    files = [tmp_path / name for name in "abc"]
    run = multiprocessing.get_context("fork").Process(target=let_sleep, args=(files,))
    run.start()
    try:
        _wait_for(lambda: all(x.exists() and x.read_text() for x in files))
    finally:
        run.kill()
        run.join()
    workers = [int(file.read_text()) for file in files]
    try:
        _wait_for(lambda: not any(map(_runs, workers)))
    finally:
        for worker in filter(_runs, workers):
            os.kill(worker, signal.SIGKILL)


def _runs(process: int) -> bool:
    try:
        # An ended process stays listed until it is collected.
        return Path(f"/proc/{process}/stat").read_text().split(") ")[1][0] != "Z"
    except OSError:
        return False


def _wait_for(condition):
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.1)
