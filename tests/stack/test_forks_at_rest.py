"""Forks of a process group wait for the other threads, and no longer than said."""

import functools
import hashlib
import os
import threading
import time
from multiprocessing import popen_fork
from types import SimpleNamespace

import pytest

from polynl_mm.stack import forks_at_rest

if not os.path.isdir(forks_at_rest.THREADS):
    pytest.skip("the system does not tell of threads", allow_module_level=True)


@pytest.fixture
def launch(monkeypatch):
    """Return what a Python of this version does to launch a forked process."""

    def install(*version: int):
        monkeypatch.setattr(popen_fork.Popen, "_launch", fork)
        forks_at_rest.fork_at_rest(version)
        forks_at_rest.fork_at_rest(version)
        return functools.partial(popen_fork.Popen._launch, None, None)

    def fork(popen, process):
        return "forked"

    monkeypatch.setattr(forks_at_rest, "PATIENCE", 60.0)
    return install


@pytest.fixture
def group(monkeypatch):
    monkeypatch.setattr(forks_at_rest.dist, "is_initialized", lambda: True)


@pytest.fixture
def waits(monkeypatch):
    """The seconds that forks wait; the second and the third wait are in vain."""
    waits = []

    def wait(patience):
        waits.append(patience)
        return len(waits) not in (2, 3)

    monkeypatch.setattr(forks_at_rest, "wait_until_threads_rest", wait)
    return waits


@pytest.fixture
def thread_at_work():
    """Return a function that starts a thread which mostly works without the GIL.

    It ends after some rounds, or with the test. No test relies on how long it takes: a
    collection of a whole run's garbage takes half a second.
    """
    threads, ended, stop = [], threading.Event(), threading.Event()

    def work(rounds):
        while True:
            hashlib.pbkdf2_hmac("sha256", b"word", b"salt", rounds or 50_000)
            if rounds or stop.is_set():
                break
        ended.set()

    def begin(rounds=None):
        threads.append(threading.Thread(target=work, args=(rounds,)))
        threads[-1].start()
        return ended

    yield begin
    stop.set()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("version", [(3, 10, 14), (3, 11, 9), (3, 11, 0)])
def test_fork_of_a_process_group_waits(version, launch, group, thread_at_work):
    fork = launch(*version)
    ended = thread_at_work(200_000)
    assert fork() == "forked"
    assert ended.is_set()


@pytest.mark.parametrize(
    "version", [(3, 10, 15), (3, 11, 10), (3, 11, 12), (3, 12, 0), (3, 13, 1)]
)
def test_python_that_is_mended_forks_at_once(version, launch, group, waits):
    assert launch(*version)() == "forked"
    assert waits == []


def test_fork_without_a_process_group_does_not_wait(launch, waits):
    assert launch(3, 11, 7)() == "forked"
    assert waits == []


def test_threads_that_go_on_are_waited_for_at_length_once(launch, group, waits):
    fork = launch(3, 11, 7)
    assert [fork() for _ in range(5)] == ["forked"] * 5
    assert waits == [60.0, 60.0, 0.02, 0.02, 60.0]


def test_interruption_of_the_wait_reaches_the_caller(launch, group, monkeypatch):
    def interrupted(seconds):
        raise KeyboardInterrupt

    clock = SimpleNamespace(monotonic=time.monotonic, sleep=interrupted)
    monkeypatch.setattr(forks_at_rest, "time", clock)
    monkeypatch.setattr(forks_at_rest, "_look", lambda: {"1": [b"R", b"1", b"1"]})
    fork = launch(3, 11, 7)
    with pytest.raises(KeyboardInterrupt):
        fork()


def test_nothing_is_done_where_threads_cannot_be_seen(launch, monkeypatch, tmp_path):
    (tmp_path / "status").write_text("Name:\tpython\nState:\tS (sleeping)\n")
    for place in (tmp_path, tmp_path / "absent"):
        monkeypatch.setattr(forks_at_rest, "OWN_THREAD", str(place))
        assert launch(3, 11, 7).func.__name__ == "fork"


def test_fork_does_not_wait_for_ever(thread_at_work):
    ended = thread_at_work()
    assert not forks_at_rest.wait_until_threads_rest(patience=0.02)
    assert not ended.is_set()


def test_sleeping_threads_are_not_waited_for():
    asleep, done = threading.Event(), threading.Event()

    def sleep():
        asleep.set()
        done.wait()

    thread = threading.Thread(target=sleep)
    thread.start()
    asleep.wait()
    assert forks_at_rest.wait_until_threads_rest(patience=60.0)
    assert thread.is_alive()
    done.set()
    thread.join()
