"""The one reader of users' text files: annotation lists, class names, tables, logs.

What is read here may come from anybody: only regular files of a bounded size are read,
as a pipe never ends and a device such as ``/dev/zero`` fills the memory.
"""

import json
import os
import stat
import sys
from typing import Any

from polynl_mm.user_errors import UserError

# The list of Kinetics-700 has 35 MB; what is larger is no list of videos or classes.
MOST_BYTES = 2**30


def expect_regular(
    path: str | os.PathLike, what: str, most_bytes: int = MOST_BYTES
) -> None:
    """Check that a file may be read whole: there, regular and of a bounded size.

    Args:
        path (str | os.PathLike): The file, or a link to it.
        what (str): What it is, for errors, such as ``"list of classes"``.
        most_bytes (int): The largest size.

    Raises:
        UserError: If it is not.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:  # a path with a zero byte
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"The {what} {path} cannot be read: {reason}.") from error
    if stat.S_ISDIR(status.st_mode):
        raise UserError(f"The {what} {path} is a folder; give a file.")
    if not stat.S_ISREG(status.st_mode):
        raise UserError(
            f"The {what} {path} is no regular file (a pipe or a device); write its "
            "content to a file."
        )
    if status.st_size > most_bytes:
        raise UserError(
            f"The {what} {path} has {status.st_size} bytes; a file of at most "
            f"{most_bytes} is read."
        )


def read_text(path: str | os.PathLike, what: str, most_bytes: int = MOST_BYTES) -> str:
    """Read a text file: UTF-8, with or without a byte-order mark.

    Args:
        path (str | os.PathLike): The file.
        what (str): What it is, for errors, such as ``"list of classes"``.
        most_bytes (int): The largest size, by default 1 GiB.

    Returns:
        str: Its content, line endings as they are.

    Raises:
        UserError: If it does not exist, is no regular file, is too large, or is no
            UTF-8.
    """
    expect_regular(path, what, most_bytes)
    try:
        # Bounded here, too: files of /proc tell no size.
        with open(path, encoding="utf-8-sig", newline="") as file:
            text = file.read(most_bytes + 1)
    except UnicodeDecodeError as error:
        raise UserError(
            f"The {what} {path} is not a text file (UTF-8); save it as UTF-8."
        ) from error
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"The {what} {path} cannot be read: {reason}.") from error
    if len(text) > most_bytes:
        raise UserError(
            f"The {what} {path} has no end within the {most_bytes} bytes that are read."
        )
    if "\0" in text:
        raise UserError(
            f"The {what} {path} is not a text file (UTF-8): it has zero bytes."
        )
    return text


def parse_json(text: str, where: str) -> Any:
    """Parse JSON that may come from anybody.

    Args:
        text (str): The JSON.
        where (str): Where it stands, for errors, such as ``"a.json, line 3"``.

    Returns:
        Any: Its content.

    Raises:
        json.JSONDecodeError: If it is no JSON.
        UserError: If it is nested too deep, or has a number of thousands of digits.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise UserError(
            f"{where} is nested too deep to be read; write it with fewer levels."
        ) from error
    except json.JSONDecodeError:
        raise
    except ValueError as error:  # Python bounds the digits of a whole number
        raise UserError(
            f"{where} has a number of too many digits; numbers of at most "
            f"{sys.get_int_max_str_digits()} are read."
        ) from error


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
