"""Programs that tests start: none outlives its time, and one that hangs says where."""

import os
import signal
import subprocess
from pathlib import Path

# Seconds for every process to write where it stands.
TELLING = 5.0


def start(command, env=None, **options) -> subprocess.Popen:
    """Start a program whose processes can say where they stand; for :func:`finish`.

    Args:
        command (Iterable): The program and its arguments.
        env (dict | None): Variables on top of this process's.
        options: For :class:`subprocess.Popen`.
    """
    env = {**os.environ, "PYTHONFAULTHANDLER": "1", **(env or {})}
    return subprocess.Popen(list(map(str, command)), env=env, text=True, **options)


def finish(process: subprocess.Popen, timeout: float) -> tuple[str, str]:
    """Return what a program wrote, once it has ended.

    Args:
        process (subprocess.Popen): From :func:`start`.
        timeout (float): Seconds. Then all its processes write their stacks and end.

    Raises:
        AssertionError: If it did not end in time, with what it wrote and the stacks.
    """
    try:
        return process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        pass
    family = _family(process.pid)
    _send(family[::-1], signal.SIGABRT)
    try:
        process.communicate(timeout=TELLING)
    except subprocess.TimeoutExpired:
        _send(family, signal.SIGKILL)
    said, errors = process.communicate()
    raise AssertionError(
        f"{process.args} did not end in {timeout} seconds. The end of stdout:\n"
        f"{(said or '')[-6000:]}\nThe end of stderr:\n{(errors or '')[-12000:]}"
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
        return (
            Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        )
    except OSError:
        return True


def _family(pid: int) -> list[int]:
    """Return a process and all that it started, parents first."""
    children = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue  # it has just ended
        children.setdefault(parent, []).append(int(stat.parent.name))
    family = [pid]
    for member in family:
        family += children.get(member, [])
    return family


def _send(pids: list[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
