"""Errors are part of the interface: one sentence for what a user can mend.

The tools run inside :func:`user_errors`. What a user can mend (a path, a config, a
checkpoint) is said in one sentence with exit status 2; anything else is a bug and
keeps its traceback. ``POLYNL_DEBUG=1`` shows the traceback of everything.
"""

import contextlib
import difflib
import errno
import io
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

PACKAGE_FOLDER = str(Path(__file__).resolve().parent) + os.sep
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# What a path that the user gave can be the reason of.
PATH_ERRORS = frozenset(
    {
        errno.EACCES,
        errno.EEXIST,
        errno.EISDIR,
        errno.ENAMETOOLONG,
        errno.ENOTDIR,
        errno.EPERM,
        errno.EROFS,
    }
)
# What explains other errors; the rooms above add theirs.
EXPLANATIONS: list[Callable[[BaseException], str | None]] = []


class UserError(ValueError):
    """Something the user gave cannot work; the message says what, and what would."""


def nearest(name: str, choices: Iterable[str], count: int = 3) -> list[str]:
    """Return the choices closest in spelling to a name.

    Args:
        name (str): What was given.
        choices (Iterable[str]): What is allowed.
        count (int): The largest number of choices returned.

    Returns:
        list[str]: The closest choices, best first; empty if none is close.
    """
    choices = list(choices)
    folded = {choice.lower(): choice for choice in choices}
    found = difflib.get_close_matches(name.lower(), folded, n=count, cutoff=0.6)
    return [folded[key] for key in found]


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Return ``"; did you mean 'a' or 'b'?"``, or an empty string.

    Args:
        name (str): What was given.
        choices (Iterable[str]): What is allowed.

    Returns:
        str: The end of a sentence.
    """
    found = nearest(name, choices)
    if not found:
        return ""
    return "; did you mean " + " or ".join(repr(choice) for choice in found) + "?"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, for use within a sentence.

    Args:
        error (BaseException): What was raised.

    Returns:
        str: At most 160 characters; the error's type where it has no message.
    """
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__


def explain(error: BaseException) -> str | None:
    """Return the sentence that mends an error, or None if it is a bug.

    Args:
        error (BaseException): What was raised.

    Returns:
        str | None: The sentence. A :class:`UserError`, a ``ValueError`` raised by
        polynl_mm's own code, what :data:`EXPLANATIONS` knows, a config that is not
        valid Python, a path that the system refuses and a full disk have one.
    """
    for link in chain(error):
        if isinstance(link, UserError):
            return str(link)
    for link in chain(error):
        for explanation in (_explain_own, *EXPLANATIONS, _explain_syntax):
            sentence = explanation(link)
            if sentence:
                return sentence
    return _explain_path(error)


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Turn errors that the user can mend into one sentence and exit status 2.

    In a distributed run every rank meets the same error; it is said once.

    Raises:
        SystemExit: With status 2 after a user error, 130 after Ctrl-C, 143 after a
            SIGTERM: what the process holds (data workers, temporary files) is
            released as at any other end.
    """
    received: list[int] = []
    _print_any_text()
    try:
        with _noting_signals(received), _lost_logs_in_one_sentence():
            yield
    except KeyboardInterrupt:
        _leave_interrupted()
    except Exception as error:
        if signal.SIGINT in received:  # a library made another error of it
            _leave_interrupted()
        sentence = explain(error)
        if sentence is None:
            raise
        if os.environ.get("POLYNL_DEBUG", "0") not in ("", "0"):
            traceback.print_exc()
        if _rank() != 0:
            # Rank 0 mostly meets the same error, says it, and is the reason why the
            # launcher ends this rank while it waits here.
            time.sleep(3)
        print(f"Error: {_in_one_line(sentence)}", file=sys.stderr, flush=True)
        _leave(EXIT_USER_ERROR)


def _print_any_text() -> None:
    """Let stdout escape what it has no characters for, as stderr does: file names."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def _noting_signals(received: list[int]) -> Iterator[None]:
    """Note Ctrl-C in a list, and let SIGTERM end the process as an exit does.

    A rank of several is ended by its launcher, at once and wherever it waits: there
    SIGTERM stays as it is.
    """

    def interrupt(number, frame):
        received.append(number)
        raise KeyboardInterrupt

    def end(number, frame):
        raise SystemExit(128 + number)

    handlers = {signal.SIGINT: (signal.default_int_handler, interrupt)}
    if "RANK" not in os.environ and "SLURM_PROCID" not in os.environ:
        handlers[signal.SIGTERM] = (signal.SIG_DFL, end)
    replaced = {}
    if threading.current_thread() is threading.main_thread():
        for number, (default, handler) in handlers.items():
            if signal.getsignal(number) == default:  # else it is the caller's
                replaced[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)


def _leave_interrupted() -> None:
    if _rank() == 0:
        print("Interrupted.", file=sys.stderr, flush=True)
    _leave(EXIT_INTERRUPTED)


@contextlib.contextmanager
def _lost_logs_in_one_sentence() -> Iterator[None]:
    """Say once that a log cannot be written; logging has a traceback for each line."""
    original = logging.Handler.handleError
    said = set()

    def handle_error(handler: logging.Handler, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            original(handler, record)
            return
        name = getattr(handler, "baseFilename", "to the terminal")
        if name not in said:
            said.add(name)
            with contextlib.suppress(OSError):  # the terminal itself may be gone
                print(
                    f"Warning: the log {name} cannot be written "
                    f"({error.strerror or error}); the run goes on without it.",
                    file=sys.stderr,
                    flush=True,
                )

    logging.Handler.handleError = handle_error
    try:
        yield
    finally:
        logging.Handler.handleError = original


def _in_one_line(sentence: str) -> str:
    """Join the lines of a sentence; spaces within them may be quoted content."""
    return " ".join(filter(None, map(str.strip, sentence.splitlines())))


def _leave(status: int) -> None:
    """Exit, without the tear-down of a process group whose other ranks may be gone."""
    distributed = sys.modules.get("torch.distributed")
    if distributed and distributed.is_available() and distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    raise SystemExit(status)


def _rank() -> int:
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0)))


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, what it was raised from, and so on.

    Args:
        error (BaseException | None): What was raised.

    Yields:
        BaseException: Each error of the chain, once.
    """
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def frames_of(error: BaseException) -> list:
    """Return the frames that an error went through, outermost first.

    Args:
        error (BaseException): What was raised.

    Returns:
        list[types.FrameType]: The frames.
    """
    return [frame for frame, _ in traceback.walk_tb(error.__traceback__)]


def _explain_own(error: BaseException) -> str | None:
    if not isinstance(error, (ValueError, ImportError)):
        return None
    frames = frames_of(error)
    if frames and frames[-1].f_code.co_filename.startswith(PACKAGE_FOLDER):
        return str(error)
    # A plugin is built by MMEngine, which may raise the plugin's own error again.
    return None


def _explain_syntax(error: BaseException) -> str | None:
    if isinstance(error, SyntaxError) and str(error.filename).endswith(".py"):
        return f"{error.filename}, line {error.lineno}: {error.msg}"
    return None


def _explain_path(error: BaseException) -> str | None:
    """Explain what the system says of a path that others than polynl_mm open."""
    if isinstance(error, OSError) and error.errno in PATH_ERRORS:
        if not isinstance(error.filename, (str, os.PathLike)):
            return None
        return (
            f"{error.filename} cannot be read or written ({error.strerror}); give "
            "another path."
        )
    for link in chain(error):
        if isinstance(link, OSError) and link.errno in DISK_FULL:
            where = (
                f"{link.filename} cannot be written"
                if link.filename
                else ("What this writes cannot be stored")
            )
            return f"{where} ({link.strerror}); make room on the disk."
    return None
