"""The one reader of users' text files: annotation lists, class names, tables."""

import os
import stat

from polynl_mm.runtime.user_errors import UserError

# The list of Kinetics-700 has 35 MB; what is larger is no list of videos or classes.
MOST_BYTES = 2**30


def read_text(path: str | os.PathLike, what: str) -> str:
    """Read a text file: UTF-8, with or without a byte-order mark.

    Args:
        path (str | os.PathLike): The file.
        what (str): What it is, for errors, such as ``"list of classes"``.

    Returns:
        str: Its content, line endings as they are.

    Raises:
        UserError: If it does not exist, is no regular file, is larger than 1 GiB, or is
            no UTF-8.
    """
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise UserError(f"The {what} {path} is a folder; give a text file.")
        if not stat.S_ISREG(status.st_mode):
            raise UserError(
                f"The {what} {path} is no regular file (a pipe or a device); write its "
                "content to a file."
            )
        if status.st_size > MOST_BYTES:
            raise UserError(
                f"The {what} {path} has {status.st_size} bytes; a text file of at most "
                f"{MOST_BYTES} is read."
            )
        with open(path, encoding="utf-8-sig", newline="") as file:
            text = file.read()
    except UnicodeDecodeError as error:
        raise UserError(
            f"The {what} {path} is not a text file (UTF-8); save it as UTF-8."
        ) from error
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"The {what} {path} cannot be read: {reason}.") from error
    if "\0" in text:
        raise UserError(
            f"The {what} {path} is not a text file (UTF-8): it has zero bytes."
        )
    return text


def read_class_names(path: str | os.PathLike) -> list[str]:
    """Read a file of class names, one per line.

    Args:
        path (str | os.PathLike): A text file; the first line names class 0. Empty
            lines at the end do not count.

    Returns:
        list[str]: The names.

    Raises:
        UserError: If it cannot be read, or has an empty line before the last name.
    """
    lines = [line.strip() for line in read_text(path, "label file").splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise UserError(f"The label file {path} is empty; it needs one name a line.")
    if "" in lines:
        raise UserError(
            f"The label file {path} has no name in line {lines.index('') + 1}, which "
            "would shift the names of all classes after it; line 1 names class 0."
        )
    return lines
