"""Forks of a process group wait for the other threads, and no longer than said."""

import hashlib
import os
import threading

import pytest

from polynl_mm.stack import forks_at_rest

if not os.path.isdir(forks_at_rest.THREADS):
    pytest.skip("the system does not tell of threads", allow_module_level=True)


@pytest.fixture
def before_fork(monkeypatch):
    """Return what a Python of this version does before it forks."""

    def install(*version: int) -> list:
        registered = []
        wait = forks_at_rest.wait_until_threads_rest
        monkeypatch.setattr(wait, "__defaults__", (60.0,))
        monkeypatch.setattr(forks_at_rest, "_installed", False)
        monkeypatch.setattr(
            os, "register_at_fork", lambda before: registered.append(before)
        )
        forks_at_rest.fork_at_rest(version)
        forks_at_rest.fork_at_rest(version)
        return registered

    return install


@pytest.fixture
def thread_at_work():
    """Return a function that starts a thread which holds no GIL for some rounds."""
    threads, ended = [], threading.Event()

    def work(rounds):
        hashlib.pbkdf2_hmac("sha256", b"word", b"salt", rounds)
        ended.set()

    def begin(rounds):
        threads.append(threading.Thread(target=work, args=(rounds,)))
        threads[-1].start()
        return ended

    yield begin
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("version", [(3, 10, 14), (3, 11, 9), (3, 11, 0)])
def test_fork_of_a_process_group_waits(
    version, before_fork, thread_at_work, monkeypatch
):
    (wait,) = before_fork(*version)
    monkeypatch.setattr(forks_at_rest.dist, "is_initialized", lambda: True)
    ended = thread_at_work(200_000)
    wait()
    assert ended.is_set()


@pytest.mark.parametrize(
    "version", [(3, 10, 15), (3, 11, 10), (3, 11, 12), (3, 12, 0), (3, 13, 1)]
)
def test_python_that_is_mended_forks_at_once(version, before_fork):
    assert before_fork(*version) == []


def test_fork_without_a_process_group_does_not_wait(before_fork, thread_at_work):
    (wait,) = before_fork(3, 11, 7)
    ended = thread_at_work(500_000)
    wait()
    assert not ended.is_set()


def test_fork_does_not_wait_for_ever(thread_at_work):
    ended = thread_at_work(500_000)
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
