"""The videos of an annotation list, and what to call what is made of them."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from polynl_mm.text_files import read_text
from polynl_mm.user_errors import UserError

# What is added to the name of a video for that of its scores.
SCORES = "_scores"


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
    file: str | Path, folder: str | Path, delimiter: str = " "
) -> list[ListedVideo]:
    """Read the videos of an annotation list, each once.

    Args:
        file (str | Path): A video on each line, with any number of labels after it.
        folder (str | Path): What relative paths are below.
        delimiter (str): What is between path and labels.

    Returns:
        list[ListedVideo]: In the order of the list. Names never lead out of a folder.

    Raises:
        UserError: If the list is empty or cannot be read.
    """
    lines = read_text(file, "annotation list").splitlines()
    paths = list(dict.fromkeys(_path_of(x, delimiter) for x in lines if x.strip()))
    if not paths:
        raise UserError(f"The annotation list {file} is empty: it lists no video.")
    names = _unlike_each_other([_name_of(path, folder) for path in paths])
    return [
        ListedVideo(_file_of(Path(folder) / path), name)
        for path, name in zip(paths, names, strict=True)
    ]


def _path_of(line: str, delimiter: str) -> str:
    fields = line.strip().split(delimiter)
    while len(fields) > 1 and fields[-1].strip().isdigit():
        fields.pop()
    return delimiter.join(fields).strip()


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
