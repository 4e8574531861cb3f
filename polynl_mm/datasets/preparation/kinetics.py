"""Kinetics-400, 600 and 700: from the official CSV files to MMAction2's lists.

A label is the place of a class among the sorted names, as in published checkpoints.
Downloaders name files in several ways, and many of the videos are gone from the web:
what is there is found by its id and times, and what is not is reported.
"""

import argparse
import csv
import io
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from polynl_mm.atomic_files import expect_outputs
from polynl_mm.datasets.preparation.video_files import (
    best_copy,
    find_videos,
    video_stem,
)
from polynl_mm.datasets.preparation.video_lists import (
    choose_delimiter,
    delimiter_hint,
    write_text,
    write_video_list,
)
from polynl_mm.text_files import read_text
from polynl_mm.user_errors import UserError, did_you_mean, user_errors

CLASS_COUNTS = (400, 600, 700)
COLUMNS = ("label", "youtube_id", "time_start", "time_end")
TIMED_STEM = re.compile(r"(.+)_(\d+(?:\.\d+)?)_(\d+(?:\.\d+)?)", re.ASCII)
LOADERS = {"train": "train_dataloader", "val": "val_dataloader test_dataloader"}
LOADERS |= {"validate": LOADERS["val"], "test": "test_dataloader"}


@dataclass(frozen=True)
class Clip:
    """A row of an official CSV file.

    Attributes:
        line (int): Where it stands in the file, from 1.
        label (str): The name of its class.
        youtube_id (str): The id of the video it was cut from.
        start (float): Where it begins there, in seconds.
        end (float): Where it ends there, in seconds.
        row (tuple[str, ...]): The row as it stands.
    """

    line: int
    label: str
    youtube_id: str
    start: float
    end: float
    row: tuple[str, ...]

    def names(self) -> list[str]:
        """Return the usual names of its file, without folder, most usual first."""
        start, end = int(self.start), int(self.end)
        return [
            f"{self.youtube_id}_{start:06d}_{end:06d}.mp4",
            f"{self.youtube_id}.mp4",
        ]


@dataclass(frozen=True)
class ClipTable:
    """An official CSV file: its header, its rows and the splits they are of."""

    header: tuple[str, ...]
    clips: list[Clip]
    splits: frozenset[str]


def read_clips(path: str | Path) -> ClipTable:
    """Read an official CSV file of Kinetics.

    Args:
        path (str | Path): With the columns label, youtube_id, time_start and
            time_end, in any order, and whatever others.

    Returns:
        ClipTable: Its rows, each once.

    Raises:
        UserError: If it has no labels, as the CSV files of some test sets, or a row
            is malformed.
    """
    reader = csv.reader(io.StringIO(read_text(path, "CSV file")))
    try:
        rows = [(reader.line_num, row) for row in reader if any(x.strip() for x in row)]
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}.") from error
    if not rows:
        raise UserError(f"The CSV file {path} is empty.")
    header = tuple(name.strip() for name in rows[0][1])
    columns = _find_columns(path, header)
    clips: dict[tuple, Clip] = {}
    splits = set()
    for line, row in rows[1:]:
        clip = _parse_row(path, line, row, header, columns)
        clips.setdefault((clip.label, clip.youtube_id, clip.start, clip.end), clip)
        if "split" in header:
            splits.add(row[header.index("split")].strip())
    if not clips:
        raise UserError(f"The CSV file {path} has a header and no rows.")
    return ClipTable(header, list(clips.values()), frozenset(splits))


def _find_columns(path: str | Path, header: tuple[str, ...]) -> list[int]:
    absent = [name for name in COLUMNS if name not in header]
    if absent == ["label"]:
        raise UserError(
            f"{path} has no column label, as the CSV files of some test sets: without "
            "labels there is nothing to train or test with. Take the one of the "
            "training or validation set."
        )
    if absent:
        raise UserError(
            f"{path} must begin with the names of its columns, {', '.join(COLUMNS)} "
            f"among them, but it begins with {','.join(header)[:120]!r}."
        )
    return [header.index(name) for name in COLUMNS]


def _parse_row(
    path: str | Path,
    line: int,
    row: list[str],
    header: tuple[str, ...],
    columns: list[int],
) -> Clip:
    where = f"{path}, line {line}"
    if len(row) != len(header):
        raise UserError(
            f"{where} has {len(row)} fields where {len(header)} are expected: "
            f"{','.join(row)[:120]!r}; names with commas must stand in quotes."
        )
    label, youtube_id, start, end = (row[column].strip() for column in columns)
    if not label or not youtube_id:
        raise UserError(f"{where} has no {'youtube_id' if label else 'label'}.")
    if len((label + youtube_id).splitlines()) > 1:
        raise UserError(
            f"{where} has a line end in the label or the youtube_id "
            f"{(label + youtube_id)[:40]!r}: a quote before it is not closed."
        )
    try:
        times = float(start), float(end)
    except ValueError:
        times = (-1.0, -1.0)
    if not 0 <= times[0] <= times[1] < 1e6:  # false for nan, too
        raise UserError(
            f"{where} has time_start {start[:40]!r} and time_end {end[:40]!r} where "
            "two times in seconds are expected."
        )
    return Clip(line, label, youtube_id, *times, tuple(row))


def read_classes(path: str | Path) -> list[str]:
    """Read the classes of a dataset, in the order of their labels.

    Args:
        path (str | Path): An official CSV file, whose labels are sorted, or a list
            of one class per line, whose order is kept.

    Returns:
        list[str]: The names; their places from 0 are their labels.

    Raises:
        UserError: If there are none, or one is there twice.
    """
    lines = read_text(path, "list of classes").splitlines()
    try:
        header = next(csv.reader(lines[:1]), [])
    except csv.Error as error:
        raise UserError(f"The list of classes {path}, line 1: {error}.") from error
    if "youtube_id" in [name.strip() for name in header]:
        return sorted({clip.label for clip in read_clips(path).clips})
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise UserError(f"The list of classes {path} is empty.")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(f"The list of classes {path} has {twice[0][:80]!r} twice.")
    return names


class KineticsVideos:
    """The videos below a folder, found by the ids and times of clips.

    Known are ``<id>_<start>_<end>`` with any number of leading zeros, and ``<id>``,
    with any suffix of a video, in folders of classes or in none.

    Args:
        root (str | Path): The folder.
        classes (Sequence[str]): The classes that folders may be named after, with
            spaces, underscores or other signs.

    Raises:
        UserError: If the folder does not exist.
    """

    def __init__(self, root: str | Path, classes: Sequence[str]):
        self._root = Path(root)
        self._classes = {_plain(name) for name in classes}
        self._by_time = defaultdict(list)
        self._by_id = defaultdict(list)
        self.found = find_videos(root)
        for path in self.found.paths:
            stem = video_stem(path)
            # An id may itself end like times, so a name is kept under both.
            self._by_id[stem].append(path)
            match = TIMED_STEM.fullmatch(stem)
            if match:
                key = match[1], float(match[2]), float(match[3])
                self._by_time[key].append(path)

    def find(self, clip: Clip) -> str | None:
        """Return the file of a clip, or None.

        Args:
            clip (Clip): A row of a CSV file.

        Returns:
            str | None: Its path below the folder. Of several, one that is neither
            empty nor cut short; of those, one whose name has the times, and then that
            in the folder of the clip's class. A file of another class's folder is only
            taken if its name has the times: one video may give clips of several
            classes.
        """
        wanted = _plain(clip.label)
        seconds = float(int(clip.start)), float(int(clip.end))
        named = [
            self._by_time.get((clip.youtube_id, clip.start, clip.end), ()),
            self._by_time.get((clip.youtube_id, *seconds), ()),
            [
                path
                for path in self._by_id.get(clip.youtube_id, ())
                if _folder_class(path) == wanted
                or _folder_class(path) not in self._classes
            ],
        ]
        ranks: dict[str, tuple] = {}
        for kind, paths in enumerate(named):
            for path in paths:
                ranks.setdefault(path, (kind, _folder_class(path) != wanted, path))
        return best_copy(self._root, ranks)


def _plain(name: str) -> str:
    """Return a name's letters and digits: downloaders change the other signs."""
    return "".join(filter(str.isalnum, name.casefold()))


def _folder_class(path: str) -> str:
    return _plain(path.split("/")[-2]) if "/" in path else ""


def build_annotations(
    table: str | Path,
    videos: str | Path,
    out: str | Path,
    *,
    classes: str | Path | None = None,
    classes_out: str | Path | None = None,
    num_classes: int | None = None,
    delimiter: str | None = None,
) -> list[str]:
    """Write the list of the clips of a CSV file that are in a folder.

    The rows of the others are written to ``<out>_missing.csv``.

    Args:
        table (str | Path): The official CSV file.
        videos (str | Path): Folder of the videos.
        out (str | Path): The list to write.
        classes (str | Path, optional): Where to take the classes and their order
            from, see :func:`read_classes`; default the CSV file itself.
        classes_out (str | Path, optional): Where to write the list of classes.
        num_classes (int, optional): How many classes there must be.
        delimiter (str, optional): What separates path and label.

    Returns:
        list[str]: A summary, one line each.

    Raises:
        UserError: If the CSV file is malformed, its classes are not those of
            ``classes``, or no video is found.
    """
    read = read_clips(table)
    names = read_classes(classes or table)
    _check_classes(read.clips, names, table, classes, num_classes)
    labels = {name: label for label, name in enumerate(names)}
    files = KineticsVideos(videos, names)
    entries, missing, found_for = [], [], defaultdict(list)
    for clip in read.clips:
        path = files.find(clip)
        if path is None:
            missing.append(clip)
        else:
            entries.append((path, labels[clip.label]))
            found_for[path].append(clip)
    if not entries:
        example = read.clips[0]
        looked_for = " or ".join(example.names())
        raise UserError(
            f"None of the {len(read.clips)} clips of {table} is among the "
            f"{len(files.found.paths)} videos below {videos}; looked for {looked_for}, "
            f"in folders such as {example.label!r} or "
            f"{example.label.replace(' ', '_')!r} or in none, with any suffix of a "
            f"video. {' '.join(files.found.skipped())}".rstrip()
        )
    delimiter = choose_delimiter([path for path, _ in entries], delimiter)
    out = Path(out)
    write_video_list(out, entries, delimiter)
    summary = [
        f"{out}: {len(entries)} of {len(read.clips)} clips, "
        f"labels 0 to {len(names) - 1}"
    ]
    if len(names) not in CLASS_COUNTS and classes is None and num_classes is None:
        summary.append(
            f"Note: {table} has {len(names)} classes, where Kinetics has 400, 600 or "
            "700, so labels are not those of published checkpoints; --classes takes "
            "them from the CSV file of the whole training set."
        )
    shared = [clips for clips in found_for.values() if len(clips) > 1]
    if shared:
        lines = " and ".join(str(clip.line) for clip in shared[0])
        summary.append(
            f"Note: {len(shared)} of the files stand for several rows, such as lines "
            f"{lines}: their names have no times, or the rows differ in label only."
        )
    summary += _write_missing(missing_file(out), read.header, missing, videos)
    summary += files.found.skipped()
    if classes_out is not None:
        write_text(classes_out, "".join(f"{name}\n" for name in names))
        summary.append(f"{classes_out}: {len(names)} classes")
    loaders = " ".join(LOADERS[x] for x in sorted(read.splits) if x in LOADERS)
    hint = delimiter_hint(delimiter, loaders or LOADERS["train"])
    return summary + ([hint] if hint else [])


def missing_file(out: str | Path) -> Path:
    """Return where the rows of the clips go that are not there.

    Args:
        out (str | Path): The list of those that are.
    """
    return Path(out).with_name(f"{Path(out).stem}_missing.csv")


def _check_classes(
    clips: Sequence[Clip],
    names: Sequence[str],
    table: str | Path,
    classes: str | Path | None,
    num_classes: int | None,
) -> None:
    if num_classes is not None and len(names) != num_classes:
        raise UserError(
            f"{classes or table} has {len(names)} classes, not the {num_classes} of "
            "--num-classes."
        )
    known = set(names)
    for clip in clips:
        if clip.label not in known:
            raise UserError(
                f"{table}, line {clip.line} has the label {clip.label!r}, which "
                f"{classes} does not have{did_you_mean(clip.label, names)}"
            )


def _write_missing(
    target: Path, header: Sequence[str], missing: Sequence[Clip], videos: str | Path
) -> list[str]:
    if not missing:
        target.unlink(missing_ok=True)  # of an earlier run
        return []
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        [header, *(clip.row for clip in missing)]
    )
    write_text(target, text.getvalue())
    return [
        f"Missing: {len(missing)} clips are not below {videos} and were left out; "
        f"their rows are in {target}"
    ]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line of ``tools/data/kinetics/build_annotations.py``.

    Args:
        argv (Sequence[str], optional): Arguments; by default those of the process.

    Returns:
        argparse.Namespace: The arguments.
    """
    parser = argparse.ArgumentParser(
        description="Write MMAction2's list of the clips of a CSV file of Kinetics."
    )
    parser.add_argument(
        "--csv", required=True, metavar="FILE", help="the official train.csv or val.csv"
    )
    parser.add_argument(
        "--videos", required=True, metavar="DIR", help="folder of the videos"
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="list to write")
    parser.add_argument(
        "--classes",
        metavar="FILE",
        help="take the classes from another CSV file (that of the training set) or "
        "from a list of one class per line; default the sorted labels of --csv",
    )
    parser.add_argument(
        "--classes-out", metavar="FILE", help="write the classes, one per line"
    )
    parser.add_argument(
        "--num-classes", type=int, help="stop if there are more or fewer classes"
    )
    parser.add_argument(
        "--delimiter",
        help="between path and label; default a space, or ';' if a path has spaces",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Write a list of Kinetics from the command line.

    Args:
        argv (Sequence[str], optional): Arguments; by default those of the process.

    Raises:
        SystemExit: With status 2 and one sentence if the arguments cannot work.
    """
    args = parse_args(argv)
    with user_errors():
        expect_outputs(
            {
                "--out": args.out,
                "the missing rows of --out": missing_file(args.out),
                "--classes-out": args.classes_out,
            },
            inputs={"--csv": args.csv, "--classes": args.classes},
        )
        summary = build_annotations(
            args.csv,
            args.videos,
            args.out,
            classes=args.classes,
            classes_out=args.classes_out,
            num_classes=args.num_classes,
            delimiter=args.delimiter,
        )
    print("\n".join(summary))
