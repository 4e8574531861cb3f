"""MMAction2's lists of videos, lines of "path label": written so that they load.

``VideoDataset`` splits each line at its ``delimiter``, a space unless the config says
otherwise, and fails in a path that has that character.
"""

import os
import re
from collections.abc import Sequence

from polynl_mm.atomic_files import renamed_when_complete
from polynl_mm.datasets.annotations import check_annotation_line
from polynl_mm.file_names import utf8_name
from polynl_mm.text_files import read_text
from polynl_mm.user_errors import UserError

DELIMITERS = (" ", ";", ",", "|", "\t")
LAST_DELIMITER = re.compile(r"([ ;,|\t])-?\d+(\.\d+)?$")


def choose_delimiter(paths: Sequence[str], wanted: str | None = None) -> str:
    """Choose what separates path and label: something that no path has.

    Args:
        paths (Sequence[str]): The paths of a list.
        wanted (str | None): What the user asked for; default a space if possible,
            else a semicolon if possible, else one of the others.

    Returns:
        str: The delimiter.

    Raises:
        UserError: If a path has the wanted delimiter, or one has each of them.
    """
    if wanted is not None:
        if not wanted or wanted in "\r\n":
            raise UserError("The delimiter must be text, such as ' ' or ';'.")
        for path in paths:
            if wanted in path:
                raise UserError(
                    f"The delimiter {wanted!r} occurs in the path {path!r}, which "
                    "VideoDataset would split there; choose another --delimiter."
                )
        return wanted
    for delimiter in DELIMITERS:
        if not any(delimiter in path for path in paths):
            return delimiter
    raise UserError(
        "Every usual delimiter occurs in one of the paths; give one that does not "
        "with --delimiter."
    )


def delimiter_hint(delimiter: str, loaders: str = "train_dataloader") -> str:
    """Say what a config needs for a list with this delimiter.

    Args:
        delimiter (str): The delimiter.
        loaders (str): The dataloaders that read the list, separated by spaces.

    Returns:
        str: A sentence, empty if the config needs nothing.
    """
    if delimiter == " ":
        return ""
    lines = (
        f"{x} = dict(dataset=dict(delimiter={delimiter!r}))" for x in loaders.split()
    )
    return f"Paths have spaces, so put into the config: {'; '.join(lines)}"


def write_video_list(
    target: str | os.PathLike, entries: Sequence[tuple[str, int]], delimiter: str
) -> None:
    """Write a list of videos, whole or not at all.

    Args:
        target (str | os.PathLike): The file to write.
        entries (Sequence[tuple[str, int]]): Path and label of each video.
        delimiter (str): What separates the two.

    Raises:
        UserError: If a path cannot stand in such a list (as UTF-8), or the file cannot
            be written.
    """
    for path, _ in entries:
        if path != path.strip() or any(end in path for end in "\r\n"):
            raise UserError(
                f"The path {path!r} begins or ends with a space, or has a line end in "
                "it, which a list cannot hold; rename the file or folder."
            )
        utf8_name(path)
    write_text(
        target, "".join(f"{path}{delimiter}{label}\n" for path, label in entries)
    )


def write_text(target: str | os.PathLike, text: str) -> None:
    """Write a text file, whole or not at all.

    Args:
        target (str | os.PathLike): The file to write.
        text (str): Its content.

    Raises:
        UserError: If it cannot be written.
    """
    try:
        with renamed_when_complete(target) as partial:
            partial.write_text(text, encoding="utf-8")
    except UnicodeEncodeError as error:
        raise UserError(f"{target} could not be written: {error}") from error


def find_delimiter(lines: Sequence[str]) -> str:
    """Return what separates path and label in a list.

    Args:
        lines (Sequence[str]): The list, of one line at least.

    Returns:
        str: What stands before the label of the first line; a space if it has none.
    """
    match = LAST_DELIMITER.search(lines[0].strip())
    return match[1] if match else " "


def read_video_list(
    path: str | os.PathLike, delimiter: str | None = None
) -> tuple[list[tuple[str, str]], str]:
    """Read a list of videos.

    Args:
        path (str | os.PathLike): The list.
        delimiter (str | None): What separates path and label; default what stands
            before the label of the first line.

    Returns:
        tuple[list[tuple[str, str]], str]: Of each line the path and the line itself,
        and the delimiter.

    Raises:
        UserError: If the list does not exist, is empty, or has a malformed line.
    """
    lines = read_text(path, "annotation file").splitlines()
    lines = [line.strip() for line in lines]
    if not any(lines):
        raise UserError(f"The annotation file {path} is empty: it lists no video.")
    if delimiter is None:
        delimiter = find_delimiter(lines)
    entries = []
    for number, line in enumerate(lines, start=1):
        try:
            name = check_annotation_line(line, "VideoDataset", delimiter)
        except ValueError as error:
            raise UserError(
                f"{path}, line {number} {error} (delimiter {delimiter!r}): "
                f"{line[:120]!r}"
            ) from error
        entries.append((name, line))
    return entries, delimiter
