"""Work on files in processes that may crash or hang without ending the run.

A decoder given a damaged file can do both, and takes its process with it: the
standard pools then lose all their work, or wait for ever. So they may after a Ctrl-C
that meets one of their locks, or where one of their threads forks while another holds
a lock that the new process then never gets. Here the parent waits on pipes alone, and
its one thread takes no lock and forks.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from polynl_mm.user_errors import UserError, first_line

# Seconds; the system takes no wait of months. After any, the deadlines are looked at.
LONGEST_WAIT = 3600.0


@dataclass(frozen=True)
class Outcome:
    """What became of one item.

    Attributes:
        item: The item.
        value: What the function returned.
        failure (str): Why it returned nothing: it raised, crashed or took too long;
            empty if it returned.
    """

    item: Any
    value: Any = None
    failure: str = ""


def run_isolated(
    function: Callable,
    items: Iterable,
    jobs: int,
    timeout: float,
    each_alone: bool = False,
) -> Iterator[Outcome]:
    """Call a function for each item in processes of their own.

    Args:
        function (Callable): Takes an item. What it prints is not shown.
        items (Iterable): The items.
        jobs (int): How many processes, at least 1.
        timeout (float): Seconds that one item may take; then its process is killed
            and replaced.
        each_alone (bool): Give each item a process that has done nothing else.

    Yields:
        Outcome: One per item, in the order in which they end.

    Raises:
        UserError: If ``jobs`` or ``timeout`` is not positive.
    """
    if jobs < 1:
        raise UserError(f"-j must be 1 or more, not {jobs}.")
    if not timeout > 0:
        raise UserError(f"--timeout must be more than 0 seconds, not {timeout:g}.")
    left, busy, idle = iter(items), [], []
    try:
        while True:
            while len(busy) < jobs:
                try:
                    item = next(left)
                except StopIteration:
                    break
                worker = idle.pop() if idle else _Worker(function)
                worker.start(item, timeout)
                busy.append(worker)
            if not busy:
                return
            soonest = min(worker.deadline for worker in busy)
            wait(
                [worker.pipe for worker in busy],
                timeout=min(max(0.0, soonest - time.monotonic()), LONGEST_WAIT),
            )
            outcomes = []
            for worker in list(busy):
                outcome = worker.outcome(timeout)
                if outcome is not None:
                    busy.remove(worker)
                    if each_alone:
                        worker.stop()
                    elif worker.process.is_alive():
                        idle.append(worker)
                    outcomes.append(outcome)
            yield from outcomes
    finally:
        for worker in busy + idle:
            worker.stop()


class _Worker:
    """A process that works on one item after the other."""

    def __init__(self, function: Callable):
        methods = multiprocessing.get_all_start_methods()
        # A forked process is there at once; a new one first imports torch.
        context = multiprocessing.get_context("fork" if "fork" in methods else None)
        self.pipe, other_end = context.Pipe()
        self.process = context.Process(
            target=_work, args=(function, other_end), daemon=True
        )
        self.process.start()
        other_end.close()  # so that the pipe ends with the process
        self.item, self.deadline = None, 0.0

    def start(self, item: Any, timeout: float) -> None:
        self.item, self.deadline = item, time.monotonic() + timeout
        with contextlib.suppress(OSError):  # it died meanwhile: outcome() says so
            self.pipe.send(item)

    def outcome(self, timeout: float) -> Outcome | None:
        """Return what became of the item, or None while the process works on it."""
        if self.pipe.poll():
            try:
                value, failure = self.pipe.recv()
                return Outcome(self.item, value, failure)
            except (EOFError, OSError):
                self.process.join(timeout=5)
                code = self.process.exitcode
                self.stop()
                return Outcome(self.item, failure=_describe_exit(code))
        if time.monotonic() >= self.deadline:
            self.stop()
            return Outcome(self.item, failure=f"took longer than {timeout:g} s")
        return None

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _stop_with_parent() -> None:
    """Leave Ctrl-C to the parent process, and end when it has been killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch():
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _work(function: Callable, pipe: Connection) -> None:
    _stop_with_parent()
    # Decoders write about every damaged packet, past Python's own streams.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    while True:
        try:
            item = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            answer = (function(item), "")
        except Exception as error:
            answer = (None, f"{type(error).__name__}: {first_line(error)}")
        pipe.send(answer)


def _describe_exit(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"crashed its process ({signal.Signals(-code).name})"
    return f"ended its process (exit status {code})"
