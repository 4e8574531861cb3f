"""The videos of an annotation list, and what to call what is made of them."""

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from polynl_mm.datasets.preparation.video_lists import find_delimiter
from polynl_mm.text_files import read_text
from polynl_mm.user_errors import UserError

# What is added to the name of a video for that of its scores.
SCORES = "_scores"
# Of a class, of none (-1), or a value between classes.
LABEL = re.compile(r"-?\d+(\.\d+)?")


@dataclass(frozen=True)
class ListedVideo:
    """A video of a list.

    Attributes:
        path (str): The file.
        name (str): A relative path without a suffix, one for each video of the list,
            and none of them another with ``SCORES`` behind.
    """

    path: str
    name: str


def read_video_list(
    file: str | Path, folder: str | Path, delimiter: str | None = None
) -> list[ListedVideo]:
    """Read the videos of an annotation list, each once.

    Args:
        file (str | Path): A video on each line, with any number of labels after it.
        folder (str | Path): What relative paths are below.
        delimiter (str | None): What is between path and labels; default what it is in
            the first line.

    Returns:
        list[ListedVideo]: In the order of the list. Names never lead out of a folder.

    Raises:
        UserError: If the list is empty or cannot be read.
    """
    lines = read_text(file, "annotation list").splitlines()
    lines = [line for line in lines if line.strip()]
    if not lines:
        raise UserError(f"The annotation list {file} is empty: it lists no video.")
    delimiter = find_delimiter(lines) if delimiter is None else delimiter
    paths = list(dict.fromkeys(_path_of(line, delimiter, folder) for line in lines))
    names = _unlike_each_other([_name_of(path, folder) for path in paths])
    return [
        ListedVideo(_file_of(Path(folder) / path), name)
        for path, name in zip(paths, names, strict=True)
    ]


def _path_of(line: str, delimiter: str, folder: str | Path) -> str:
    line = line.strip()
    fields = line.split(delimiter)
    while len(fields) > 1 and LABEL.fullmatch(fields[-1].strip()):
        fields.pop()
    path = delimiter.join(fields).strip()
    # Without a suffix, what looks like a label may be the end of a name: "match 2".
    whole, short = (_file_of(Path(folder) / name) for name in (line, path))
    return line if os.path.isfile(whole) and not os.path.isfile(short) else path


def _name_of(path: str, folder: str | Path) -> PurePosixPath:
    inside = Path(path)
    if inside.is_absolute():
        below = inside.is_relative_to(Path(folder).absolute())
        inside = (
            inside.relative_to(Path(folder).absolute()) if below else Path(inside.name)
        )
    parts = [part for part in inside.parts if part not in ("..", ".")]
    return PurePosixPath(*parts)


def _unlike_each_other(paths: list[PurePosixPath]) -> list[str]:
    """Return names of which none, with or without SCORES, is another's."""
    stems = [str(path.with_suffix("")) for path in paths]
    counts = Counter(stems)
    counts.update(f"{stem}{SCORES}" for stem in set(stems))
    names, taken = [], set()
    for path, stem in zip(paths, stems, strict=True):
        if counts[stem] > 1:  # a.mp4 beside a.avi
            stem = f"{stem}_{path.suffix.lstrip('.')}"
        name, number = stem, 1
        while not taken.isdisjoint((name, f"{name}{SCORES}")):
            number += 1
            name = f"{stem}_{number}"
        taken |= {name, f"{name}{SCORES}"}
        names.append(name)
    return names


def _file_of(path: Path) -> str:
    # DecordInit adds the suffix where a list leaves it out.
    if not path.suffix and not path.exists():
        return f"{path}.mp4"
    return str(path)
