"""Data workers of a distributed training are forked while no other thread is at work.

Mends: a thread of gloo or NCCL that drops the tensors of a collective enters Python,
and takes the interpreter's lock on its list of threads without holding the GIL. A data
worker that is forked in that moment waits for this lock for ever, and all ranks for
that worker (CPython, gh-112275). On two CPU processes, one of some two thousand did.
Switches itself off: with a Python that makes the lock anew in the child (3.10.15,
3.11.10, 3.12), and where the system does not tell of threads.
"""

import contextlib
import os
import sys
import threading
import time

import torch.distributed as dist

THREADS = "/proc/self/task"
FIRST_SAFE = {10: (3, 10, 15), 11: (3, 11, 10)}
# Seconds that a fork waits for threads that go on working.
PATIENCE = 0.5

_installed = False


def fork_at_rest(version: tuple = sys.version_info) -> None:
    """Let forks wait until the other threads rest, where Python needs it.

    Args:
        version (tuple): Of Python.
    """
    global _installed
    safe = tuple(version[:3]) >= FIRST_SAFE.get(version[1], (3, 12))
    if safe or _installed or not os.path.isdir(THREADS):
        return
    os.register_at_fork(before=_wait_for_process_groups)
    _installed = True


def _wait_for_process_groups() -> None:
    if dist.is_available() and dist.is_initialized():
        wait_until_threads_rest()


def wait_until_threads_rest(patience: float = PATIENCE) -> bool:
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
        if seen == last and all(state == "S" for state, *_ in seen.values()):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.0005)  # without the GIL, which they may be waiting for


def _look() -> dict[str, tuple[str, ...]]:
    """Return the state of each other thread, and how often it has been switched to."""
    own = str(threading.get_native_id())
    threads = {}
    for thread in os.listdir(THREADS):
        if thread == own:
            continue
        with contextlib.suppress(OSError), open(f"{THREADS}/{thread}/status") as file:
            fields = dict(line.split(":", 1) for line in file if ":" in line)
            threads[thread] = (
                fields["State"].split()[0],
                fields["voluntary_ctxt_switches"].strip(),
                fields["nonvoluntary_ctxt_switches"].strip(),
            )
    return threads
