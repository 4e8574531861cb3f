"""Programs that tests start: none outlives its time, and one that hangs says where."""

import os
import signal
import subprocess
import uuid
from pathlib import Path

# Seconds for every process to write where it stands, and to be gone when killed.
TELLING = 5.0
# Characters of the output that are shown; the stacks of a launcher, two ranks and
# their data workers take a third of them.
SHOWN = 40_000
MARK = "POLYNL_TEST_PROGRAM"


def start(command, env=None, **options) -> subprocess.Popen:
    """Start a program whose processes can say where they stand; for :func:`finish`.

    Args:
        command (Iterable): The program and its arguments.
        env (dict | None): Variables on top of this process's.
        options: For :class:`subprocess.Popen`.
    """
    mark = uuid.uuid4().hex
    env = {**os.environ, "PYTHONFAULTHANDLER": "1", **(env or {}), MARK: mark}
    process = subprocess.Popen(list(map(str, command)), env=env, text=True, **options)
    process.mark = f"{MARK}={mark}".encode()
    return process


def finish(process: subprocess.Popen, timeout: float) -> tuple[str, str]:
    """Return what a program wrote, once it and all that it started have ended.

    Args:
        process (subprocess.Popen): From :func:`start`.
        timeout (float): Seconds. Then all its processes write their stacks and end.

    Raises:
        AssertionError: If it did not end in time, with what it wrote and the stacks.
    """
    try:
        return process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        status = process.poll()
    except BaseException:
        _end(process, signal.SIGKILL)
        raise
    _end(process, signal.SIGABRT)
    try:
        said, errors = process.communicate(timeout=TELLING)
    except subprocess.TimeoutExpired:
        _end(process, signal.SIGKILL)
        said, errors = process.communicate(timeout=TELLING)
    how = "did not end"
    if status is not None:
        how = f"ended with {status}, but what it started did not end"
    raise AssertionError(
        f"{process.args} {how} in {timeout} seconds. The end of stdout:\n"
        f"{(said or '')[-SHOWN:]}\nThe end of stderr:\n{(errors or '')[-SHOWN:]}"
    )


def run(command, timeout: float, env=None, **options) -> subprocess.CompletedProcess:
    """Run a program to its end: :func:`start` and :func:`finish` in one."""
    process = start(command, env, **options)
    said, errors = finish(process, timeout)
    return subprocess.CompletedProcess(
        process.args, process.returncode, said or "", errors or ""
    )


def gone(pid: int) -> bool:
    """Whether a process has ended, be it that nobody has asked how."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return True
    return stat.rpartition(b")")[2].split()[0] == b"Z"


def _end(process: subprocess.Popen, number: int) -> None:
    """Send a signal to all that a program has started, orphans too."""
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if process.mark in environ.read_bytes().split(b"\0"):
                os.kill(int(environ.parent.name), number)
        except OSError:
            continue  # it has just ended, or is another user's
    process.send_signal(number)  # where there is no /proc; nothing if it has ended
