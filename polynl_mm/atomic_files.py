"""Files appear whole or not at all: written under another name, then renamed.

What keeps a file from being written (a folder in its place, no permission, a full disk)
is said in one sentence; :func:`expect_outputs` says it before the work begins, and
keeps what is written apart from what is read.
"""

import contextlib
import errno
import json
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from polynl_mm.user_errors import DISK_FULL, UserError

LEFTOVER = re.compile(r"\.(\d{1,9})-[0-9a-f]{6}\.part(\.|$)")
_ADVICE = {
    **dict.fromkeys(DISK_FULL, "make room on its disk, or give a path on another one"),
    errno.EACCES: "give a path that you may write to",
    errno.EPERM: "give a path that you may write to",
    errno.EROFS: "give a path that you may write to",
    errno.ENAMETOOLONG: "give a shorter name",
}


class UnwritableError(UserError, OSError):
    """A file cannot be written; ``errno`` and ``strerror`` are those of the reason."""

    def __str__(self) -> str:
        return str(self.args[0])


def expect_outputs(
    files: Mapping[str, str | os.PathLike | None] | None = None,
    folders: Mapping[str, str | os.PathLike | None] | None = None,
    inputs: Mapping[str, str | os.PathLike | Iterable[str] | None] | None = None,
) -> None:
    """Check, before long work begins, that its results can be written, each for itself.

    Nothing is made. A disk may still be full in the end.

    Args:
        files (Mapping[str, str | os.PathLike | None] | None): By the option that gives
            it, each file to write; None where the option is not given.
        folders (Mapping[str, str | os.PathLike | None] | None): So, too, each folder
            to write files to.
        inputs (Mapping[str, str | os.PathLike | Iterable[str] | None] | None): So,
            too, each file that is read, or several.

    Raises:
        UnwritableError: If one cannot be written, or is an input or another output.
    """
    if int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0))) != 0:
        return  # the first process writes, and stands for all of them
    for option, folder in (folders or {}).items():
        if folder is not None:
            _expect_folder(Path(folder), f"{option} {folder}")
    for option, file in (files or {}).items():
        if file is not None:
            _expect_file(Path(file), f"{option} {file}")
            _expect_folder(Path(file).parent, f"{option} {file}")
    _expect_apart(files or {}, inputs or {})


def place_of(path: str | os.PathLike) -> tuple[int, int] | str:
    """Return what all names of a file have in common, be they links or hard links.

    Args:
        path (str | os.PathLike): A file, or where one is to be.

    Returns:
        tuple[int, int] | str: Its disk and number there; its real path if it is not
        there. That changes when it is written.
    """
    try:
        found = os.stat(path)
    except OSError:
        return os.path.realpath(path)
    return found.st_dev, found.st_ino


@contextlib.contextmanager
def renamed_when_complete(target: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside the target, renamed to it on success.

    Args:
        target (str | os.PathLike): The file to write; its folder is made.

    Yields:
        Path: Where to write. It keeps the target's suffix, is flushed to the disk
        before the rename, and is removed if the block raises.

    Raises:
        UnwritableError: If the file cannot be written. Errors of other files, and
            those that are no errors of writing, pass as they are.
    """
    target = Path(target)
    _expect_file(target, str(target))
    name = f".{target.stem}.{os.getpid()}-{secrets.token_hex(3)}.part{target.suffix}"
    partial = target.with_name(name)
    try:
        _make_folder(target)
        try:
            yield partial
            with open(partial, "rb") as file:
                os.fsync(file.fileno())
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
    except Exception as error:
        reason = _write_error(error, partial, target)
        if reason is None or isinstance(error, UserError):
            raise
        raise _unwritable(str(target), reason) from error


def remove_leftovers(folder: str | os.PathLike) -> None:
    """Remove the half-written files that processes killed meanwhile have left.

    Args:
        folder (str | os.PathLike): Where to look, also below. Files of processes that
            are alive stay.
    """
    for path in Path(folder).rglob(".*.part*"):
        found = LEFTOVER.search(path.name)
        if found and not _is_alive(int(found[1])):
            path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def write_json(target: str | os.PathLike, content: Any) -> None:
    """Write JSON to a file, whole or not at all.

    Args:
        target (str | os.PathLike): The file to write.
        content (Any): What to write; numpy and torch scalars become numbers.

    Raises:
        UnwritableError: If the file cannot be written.
    """
    with renamed_when_complete(target) as partial:
        text = json.dumps(content, indent=2, default=_plain_number)
        partial.write_text(text + "\n", encoding="utf-8")


def _expect_file(target: Path, named: str) -> None:
    """Refuse what is there and no file, which a rename would fail at or replace."""
    try:
        mode = os.stat(target).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise _unwritable(named, error) from error
    except ValueError as error:  # a zero byte
        raise UnwritableError(f"{named} is no name of a file: {error}.") from error
    if stat.S_ISDIR(mode):
        raise UnwritableError(
            f"{named} is a folder; give the name of the file to write."
        )
    if not stat.S_ISREG(mode):
        raise UnwritableError(
            f"{named} is no regular file (a pipe or a device); give the name of a file "
            "to write."
        )


def _expect_folder(folder: Path, named: str) -> None:
    """Refuse a folder that cannot be made, or that nothing can be written to."""
    try:
        while not os.path.lexists(folder) and folder != folder.parent:
            folder = folder.parent
        if not folder.is_dir():
            raise UnwritableError(
                f"{named} cannot be written: {folder} is no folder; give another path."
            )
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UnwritableError(f"{named} cannot be written: {error}.") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        reason = PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        raise _unwritable(named, reason)


def _expect_apart(
    files: Mapping[str, str | os.PathLike | None],
    inputs: Mapping[str, str | os.PathLike | Iterable[str] | None],
) -> None:
    """Refuse to write over what is read, or twice to one file."""
    read, written = {}, {}
    for name, given in inputs.items():
        paths = [given] if isinstance(given, str | os.PathLike) else given or ()
        read |= {place_of(path): f"{name} {path}" for path in paths}
    for option, file in files.items():
        if file is None:
            continue
        place = place_of(file)
        if place in read:
            raise UnwritableError(
                f"{option} {file} is the file of {read[place]}, which would be "
                "overwritten; give another path."
            )
        if place in written:
            raise UnwritableError(
                f"{option} {file} is the file of {written[place]}, too; give each "
                "a path of its own."
            )
        written[place] = option


def _make_folder(target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        _expect_folder(target.parent, str(target))
        raise


def _write_error(error: BaseException | None, *own: Path) -> OSError | None:
    """Return what of an error says that a file cannot be written, if anything does."""
    if isinstance(error, OSError) and error.errno is not None:
        names = [n for n in (error.filename, error.filename2) if isinstance(n, str)]
        known = {str(path) for path in own} | {str(path.parent) for path in own}
        if not names or known.intersection(names) or error.errno in DISK_FULL:
            return error
        # What could not be made of the folders above.
        return error if any(own[0].is_relative_to(name) for name in names) else None
    # torch's writer hides the error of the file beneath its own.
    beneath = error.__context__ if error is not None else None
    if isinstance(beneath, OSError) and beneath.errno in DISK_FULL:
        return beneath
    return None


def _unwritable(named: str, reason: OSError) -> UnwritableError:
    said = reason.strerror or str(reason)
    advice = _ADVICE.get(reason.errno, "give another path")
    error = UnwritableError(f"{named} cannot be written ({said}); {advice}.")
    error.errno, error.strerror = reason.errno, reason.strerror
    return error


def _plain_number(value: Any) -> Any:
    if hasattr(value, "item") and getattr(value, "size", 1) in (1,):
        return value.item()
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)
