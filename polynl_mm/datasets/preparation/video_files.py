"""Video files on the disk: which there are below a folder, which are cut short."""

import os
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from polynl_mm.user_errors import UserError

VIDEO_SUFFIXES = (
    ".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v", ".flv", ".wmv", ".mpg", ".mpeg",
    ".3gp",
)  # fmt: skip
SHOWN_SUFFIXES = 8
MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp")
EBML_HEADER, MATROSKA_SEGMENT = 0x1A45DFA3, 0x18538067
# How other files of videos begin: FLV, WMV, and MPEG's program and video streams.
OTHER_STARTS = (b"FLV", b"\x30\x26\xb2\x75", b"\0\0\1\xba", b"\0\0\1\xb3")
# A file that has lost less than the rest of its frames is good enough for training.
LEAST_SHARE = 0.9


@dataclass(frozen=True)
class FoundVideos:
    """What is below a folder.

    Attributes:
        paths (list[str]): Of the videos, relative to the folder, sorted.
        others (list[str]): Of the files that are not taken for videos, likewise.
    """

    paths: list[str]
    others: list[str]

    def skipped(self) -> list[str]:
        """Say in at most one line which files are not taken for videos, and why."""
        if not self.others:
            return []
        first: dict[str, str] = {}
        for path in self.others:
            first.setdefault(_suffix(path), path)
        counts = Counter(map(_suffix, self.others)).most_common()
        named = [
            f"{count} {suffix or 'without a suffix'} ({first[suffix]})"
            for suffix, count in counts[:SHOWN_SUFFIXES]
        ]
        if rest := counts[SHOWN_SUFFIXES:]:
            named.append(f"{sum(count for _, count in rest)} of {len(rest)} others")
        return [
            f"Skipped, as their suffixes are not those of videos: {', '.join(named)}. "
            f"Videos end in {', '.join(VIDEO_SUFFIXES)}."
        ]


def find_videos(root: str | os.PathLike) -> FoundVideos:
    """Find the video files below a folder, following links to folders.

    Hidden files, which unfinished downloads and copies often are, are left out.

    Args:
        root (str | os.PathLike): The folder.

    Returns:
        FoundVideos: They, and the other files there are.

    Raises:
        UserError: If the folder does not exist or cannot be read.
    """
    root = os.fspath(root)
    check_folder(root)
    videos, others, seen = [], [], set()
    with tqdm(desc="Looking for videos", unit=" files", delay=1, leave=False) as bar:
        for folder, folders, names in os.walk(root, onerror=_stop, followlinks=True):
            place = os.path.realpath(folder)
            if place in seen:  # a link to a folder above it
                folders.clear()
                continue
            seen.add(place)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            relative = os.path.relpath(folder, root)
            for name in names:
                if not name.startswith("."):
                    path = Path(relative, name).as_posix()
                    (videos if _is_video_name(name) else others).append(path)
            bar.update(len(names))
    return FoundVideos(sorted(videos), sorted(others))


def check_folder(root: str | os.PathLike) -> None:
    """Refuse a folder of videos that is not there.

    Args:
        root (str | os.PathLike): The folder.

    Raises:
        UserError: If it does not exist, or is a file.
    """
    if not os.path.isdir(root):
        what = "is not a folder" if os.path.exists(root) else "does not exist"
        raise UserError(f"The folder of videos {root} {what}.")


def _is_video_name(name: str) -> bool:
    return name.lower().endswith(VIDEO_SUFFIXES)


def _suffix(path: str) -> str:
    return Path(path).suffix.lower()


def video_stem(path: str) -> str:
    """Return the name of a video without folders and suffixes.

    Args:
        path (str): Such as ``folder/name.mp4.webm``, as some downloaders write.

    Returns:
        str: Such as ``name``.
    """
    stem = path.rsplit("/", 1)[-1]
    while stem.lower().endswith(VIDEO_SUFFIXES):
        stem = stem[: stem.rindex(".")]
    return stem


def find_cut(path: str | os.PathLike) -> str | None:
    """Say where a file ends before its container does, by the container's own sizes.

    Args:
        path (str | os.PathLike): A file; mp4, mov, avi, mkv and webm are understood.

    Returns:
        str | None: What is missing, or None if nothing is, or nothing can be said.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(12)
        if start[4:8] in MP4_BOXES:
            return _find_mp4_cut(file, size)
        if start[:4] == b"RIFF" and len(start) == 12:
            return _find_avi_cut(file, size)
        if start[:4] == EBML_HEADER.to_bytes(4, "big"):
            file.seek(4)
            return _find_matroska_cut(file, size)
    return None


def find_loss(path: str | os.PathLike, frames: int, declared: int) -> str:
    """Say whether a file has lost frames that it should have.

    Args:
        path (str | os.PathLike): The file.
        frames (int): How many there are.
        declared (int): How many its container counts, 0 if it does not.

    Returns:
        str: What is missing; empty if nothing is, or nothing can be said.
    """
    cut = find_cut(path)
    # Containers that are whole count frames that cannot be decoded, too: those before
    # the first key frame, those hidden by the edit list of a trimmed mp4 file, those
    # that an avi file repeats.
    if not cut or (declared and frames >= LEAST_SHARE * declared):
        return ""
    return f"has {frames} of {declared} frames; {cut}" if declared else cut


def best_copy(root: str | os.PathLike, ranks: Mapping[str, Any]) -> str | None:
    """Choose one of several files of the same video.

    Args:
        root (str | os.PathLike): The folder that they are below.
        ranks (Mapping[str, Any]): Their paths, and what they are sorted by.

    Returns:
        str | None: The first that looks whole, or else the first; None of none.
    """
    ordered = sorted(ranks, key=ranks.get)
    if len(ordered) < 2:  # nothing to choose: check_videos.py finds what is damaged
        return next(iter(ordered), None)
    whole = (path for path in ordered if looks_whole(os.path.join(root, path)))
    return next(whole, ordered[0])


def looks_whole(path: str | os.PathLike) -> bool:
    """Return whether a file looks like a video that is there to its end.

    Nothing is decoded: this tells copies of a video apart, and is no check.

    Args:
        path (str | os.PathLike): The file.

    Returns:
        bool: False if it is missing, empty, cut short or begins like no video.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(12)
        is_video = (
            start[4:8] in MP4_BOXES
            or start.startswith((b"RIFF", EBML_HEADER.to_bytes(4, "big")))
            or start.startswith(OTHER_STARTS)
        )
        return is_video and not find_cut(path)
    except OSError:
        return False


def counts_frames(path: str | os.PathLike) -> bool:
    """Return whether the container holds a number of frames (mp4, mov, avi).

    In others the number is an estimate: the duration, which may be that of the
    sound, times the frame rate.

    Args:
        path (str | os.PathLike): A file.

    Returns:
        bool: Whether it is one of these containers.
    """
    with open(path, "rb") as file:
        start = file.read(12)
    return start[4:8] in MP4_BOXES or start[:4] == b"RIFF"


def _find_avi_cut(file, size: int) -> str | None:
    position = 0  # large files are several RIFF chunks, one after the other
    while position + 8 <= size:
        file.seek(position)
        kind, length = struct.unpack("<4sI", file.read(8))
        if kind != b"RIFF":
            break
        position += 8 + length
    return _missing(position, size)


def _find_mp4_cut(file, size: int) -> str | None:
    position, has_index = 0, False
    while position + 8 <= size:
        file.seek(position)
        header = file.read(16)
        length, kind = struct.unpack(">I4s", header[:8])
        has_index |= kind in (b"moov", b"moof")
        if length == 1 and len(header) == 16:
            length = struct.unpack(">Q", header[8:])[0]
        if length == 0:  # to the end of the file
            position = size
        elif length < 8:
            return None
        position += length
    if position > size:
        return _missing(position, size)
    return (
        None if has_index else "it has no index (moov): it was not written to its end"
    )


def _find_matroska_cut(file, size: int) -> str | None:
    header_length, _ = _read_ebml_size(file)
    if header_length is None:
        return None
    file.seek(header_length, os.SEEK_CUR)
    if file.read(4) != MATROSKA_SEGMENT.to_bytes(4, "big"):
        return None if file.tell() < size else "it ends within its header"
    length, unknown = _read_ebml_size(file)
    if length is None or unknown:
        return None
    return _missing(file.tell() + length, size)


def _read_ebml_size(file) -> tuple[int | None, bool]:
    """Read a number whose leading zero bits say how many more bytes it has."""
    first = file.read(1)
    if not first or not first[0]:
        return None, False
    more = 8 - first[0].bit_length()
    rest = file.read(more)
    if len(rest) < more:
        return None, False
    value = int.from_bytes(bytes([first[0] & (0x7F >> more)]) + rest, "big")
    return value, value == (1 << 7 * (more + 1)) - 1


def _missing(length: int, size: int) -> str | None:
    if length <= size:
        return None
    return f"the file ends {length - size} bytes early, after {size}"


def _stop(error: OSError) -> None:
    raise UserError(f"The folder of videos cannot be read: {error}") from error
