"""Data workers of a distributed training are forked while no other thread is at work.

Mends: a thread of gloo or NCCL that drops the tensors of a collective enters Python,
and takes the interpreter's lock on its list of threads without holding the GIL. A data
worker that is forked in that moment waits for this lock for ever, and all ranks for
that worker (CPython, gh-112275). On two CPU processes, one of some two thousand did.
Switches itself off: with a Python that makes the lock anew in the child (3.10.15,
3.11.10, 3.12), and where the system does not tell what threads do.
"""

import contextlib
import functools
import os
import sys
import time

import torch.distributed as dist

THREADS = "/proc/self/task"
OWN_THREAD = "/proc/thread-self"
FIRST_SAFE = {10: (3, 10, 15), 11: (3, 11, 10)}
# Of a thread: what it does now, and how often it has begun to do something.
FIELDS = (b"State", b"voluntary_ctxt_switches", b"nonvoluntary_ctxt_switches")
# Seconds that a fork waits for threads that go on working; and the next one, if they
# went on for that long.
PATIENCE = 0.5
LITTLE_PATIENCE = 0.02


def fork_at_rest(version: tuple = sys.version_info) -> None:
    """Let processes be forked while the other threads rest, where Python needs it.

    Args:
        version (tuple): Of Python.
    """
    safe = tuple(version[:3]) >= FIRST_SAFE.get(version[1], (3, 12))
    if safe or not _tells_of_threads():
        return
    from multiprocessing.popen_fork import Popen

    if hasattr(Popen._launch, "at_rest"):
        return
    Popen._launch = _at_rest(Popen._launch)


def _tells_of_threads() -> bool:
    try:
        return len(_read(OWN_THREAD)) == len(FIELDS)
    except OSError:
        return False


def _at_rest(launch):
    # Around the launch, and not by os.register_at_fork: what is raised there is lost,
    # and with it a Ctrl-C.
    patience = PATIENCE

    @functools.wraps(launch)
    def launch_at_rest(popen, process):
        nonlocal patience
        if dist.is_available() and dist.is_initialized():
            rested = wait_until_threads_rest(patience)
            patience = PATIENCE if rested else LITTLE_PATIENCE
        return launch(popen, process)

    launch_at_rest.at_rest = True
    return launch_at_rest


def wait_until_threads_rest(patience: float) -> bool:
    """Wait until no other thread of this process runs, or is about to.

    A thread that sleeps holds no lock of the interpreter but the GIL. That none has
    run between two looks shows that none was woken by what the first one let go.

    Args:
        patience (float): Seconds after which it no longer waits.

    Returns:
        bool: Whether they rest.
    """
    deadline = time.monotonic() + patience
    seen = _look()
    while True:
        last, seen = seen, _look()
        if seen == last and all(state.startswith(b"S") for state, *_ in seen.values()):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.0005)  # without the GIL, which they may be waiting for


def _look() -> dict[str, list[bytes]]:
    """Return what is told of each other thread."""
    own = os.path.basename(os.readlink(OWN_THREAD))
    threads = {}
    for thread in os.listdir(THREADS):
        with contextlib.suppress(OSError):  # it has just ended
            if thread != own:
                threads[thread] = _read(f"{THREADS}/{thread}")
    return threads


def _read(thread: str) -> list[bytes]:
    with open(f"{thread}/status", "rb") as file:  # bytes: a name may be cut in two
        lines = [line.split(b":", 1) for line in file]
    return [told.strip() for field, *rest in lines if field in FIELDS for told in rest]
