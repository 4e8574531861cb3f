"""Names of files that are no text: shown in sentences, and kept from C code.

Old disks and archives have names that are not UTF-8. Python holds their bytes as lone
surrogates, which no file of text takes, and of which OpenCV ends the process.
"""

import os

from polynl_mm.user_errors import UserError

NOT_UTF8 = (
    "has a name that is not UTF-8 (text), which OpenCV and decord cannot open; rename "
    "the file or folder"
)


def printable(path: str | os.PathLike) -> str:
    r"""Return a path as text that every UTF-8 file and terminal takes.

    Args:
        path (str | os.PathLike): The path.

    Returns:
        str: The path, with bytes that are not UTF-8 written as ``\xff``.
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def is_utf8(path: str | os.PathLike) -> bool:
    """Return whether a path can be handed to C code that takes UTF-8 only.

    Args:
        path (str | os.PathLike): The path.
    """
    try:
        os.fspath(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def utf8_name(path: str | os.PathLike) -> str:
    """Return a path for C code that takes UTF-8 only: OpenCV, which others crash.

    Args:
        path (str | os.PathLike): The path.

    Returns:
        str: The same.

    Raises:
        UserError: If it is not UTF-8.
    """
    if not is_utf8(path):
        raise UserError(f"{printable(path)} {NOT_UTF8}.")
    return os.fspath(path)
