"""What the tools call what they make of a video, so that no other file is lost."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from polynl_mm.atomic_files import place_of
from polynl_mm.user_errors import UserError


def result_stem(video: str) -> str:
    """Return what the names of a video's results begin with.

    Args:
        video (str): The file.

    Returns:
        str: ``x`` for ``x.mp4``, ``x_mkv`` for ``x.mkv``.
    """
    path = Path(video)
    return path.stem + ("" if path.suffix == ".mp4" else path.suffix.replace(".", "_"))


def annotated_copies(
    videos: Sequence[str], folder: str, others: Iterable[str | os.PathLike | None]
) -> list[Path]:
    """Choose where the annotated copies of videos go: each to a file of its own.

    Args:
        videos (Sequence[str]): The files, none of which is written over.
        folder (str): Where the copies go.
        others (Iterable[str | os.PathLike | None]): More files not to write over.

    Returns:
        list[Path]: ``NAME_predicted.mp4`` for each, or ``NAME_predicted_2.mp4`` and so
        on where that is one of the files or the copy of another video.
    """
    taken = {place_of(path) for path in (*videos, *others) if path is not None}
    numbers, copies = Counter(), []  # the last number that each name has got
    for video in videos:
        name = f"{result_stem(video)}_predicted"
        while True:
            numbers[name] += 1
            ending = f"_{numbers[name]}" if numbers[name] > 1 else ""
            copy = Path(folder) / f"{name}{ending}.mp4"
            if place_of(copy) not in taken:
                break
        taken.add(place_of(copy))
        copies.append(copy)
    return copies


def read_record(file: Path, video: str) -> dict | None:
    """Read the record of an earlier result, which may be replaced by one of its video.

    Args:
        file (Path): A JSON file that names its video.
        video (str): Whose result it should be.

    Returns:
        dict | None: The record; None if there is none that can be read.

    Raises:
        UserError: If it is that of another video. A copy in another folder, of the
            same name and size, is the same, and so is one that has been moved.
    """
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    named = record.get("video") if isinstance(record, dict) else None
    if isinstance(named, str) and _is_video(named, video):
        return record
    raise UserError(
        f"{file} is the result of {named or 'something else'}, not of {video}; give "
        "another --out-dir, or remove it first."
    )


def _is_video(named: str, video: str) -> bool:
    alike = Path(named).name == Path(video).name
    if not (os.path.exists(named) and os.path.exists(video)):
        return alike
    if alike and os.path.getsize(named) == os.path.getsize(video):
        return True
    return place_of(named) == place_of(video)
