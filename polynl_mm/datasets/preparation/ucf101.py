"""UCF-101: from the official train and test lists to MMAction2's.

The archives spell one class in two ways: its videos are
``HandstandPushups/v_HandStandPushups_*.avi``, and copies of the dataset have either
spelling for both. Where the videos are given, names are found whatever their case.
"""

import argparse
import csv
import io
import re
from collections import defaultdict
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

SPLITS = (1, 2, 3)
PARTS = {"train": "trainlist{:02d}.txt", "val": "testlist{:02d}.txt"}
ARCHIVE_FOLDER = "ucfTrainTestlist"
CLASS_FILE = "classInd.txt"
OUT_NAME = "ucf101_{}_split_{}_videos.txt"
CLASSES_OUT = "ucf101_classes.txt"
MISSING_OUT = "ucf101_missing.csv"
EXAMPLES = 3


@dataclass(frozen=True)
class ListedVideo:
    """A line of an official list: its path and its label, from 0."""

    path: str
    label: int


def read_classes(path: Path) -> list[str]:
    """Read the official ``classInd.txt``.

    Args:
        path (Path): Lines of ``number name``, the numbers from 1 on.

    Returns:
        list[str]: The names in the order of their numbers, less one their labels.

    Raises:
        UserError: If a line is malformed, or a number is missing or there twice.
    """
    names = {}
    for number, line in _lines(path):
        match = re.fullmatch(r"(\d+)\s+(\S+)", line, re.ASCII)
        if not match:
            raise UserError(
                f"{path}, line {number} is {line[:120]!r} where a number and the name "
                "of a class are expected, such as '1 ApplyEyeMakeup'."
            )
        if int(match[1]) in names:
            raise UserError(f"{path}, line {number} has the number {match[1]} again.")
        names[int(match[1])] = match[2]
    if sorted(names) != list(range(1, len(names) + 1)):
        raise UserError(
            f"{path} must number its {len(names)} classes from 1 to {len(names)}, but "
            f"its numbers go from {min(names)} to {max(names)}."
        )
    return [names[number] for number in sorted(names)]


def read_split(path: Path, classes: Sequence[str]) -> list[ListedVideo]:
    """Read an official ``trainlist0N.txt`` or ``testlist0N.txt``.

    Args:
        path (Path): Lines of ``Class/video.avi``, in train lists followed by the
            number of the class, from 1 on.
        classes (Sequence[str]): From :func:`read_classes`.

    Returns:
        list[ListedVideo]: One per line.

    Raises:
        UserError: If a line is malformed, or its folder and number disagree.
    """
    labels = {name.casefold(): label for label, name in enumerate(classes)}
    videos = []
    for number, line in _lines(path):
        where = f"{path}, line {number}"
        match = re.fullmatch(r"([^/\\\s]+)/([^/\\\s]+)(?:\s+(\d+))?", line, re.ASCII)
        if not match:
            raise UserError(
                f"{where} is {line[:120]!r} where a class, a slash and a video are "
                "expected, such as 'Archery/v_Archery_g01_c01.avi'."
            )
        folder, name, given = match.groups()
        label = labels.get(folder.casefold())
        if label is None:
            raise UserError(
                f"{where} has the class {folder!r}, which {CLASS_FILE} does not have"
                f"{did_you_mean(folder, classes)}"
            )
        if given is not None and int(given) != label + 1:
            raise UserError(
                f"{where} gives {folder} the number {given}, but {CLASS_FILE} gives it "
                f"{label + 1}."
            )
        videos.append(ListedVideo(f"{folder}/{name}", label))
    return videos


class UCF101Videos:
    """The videos below a folder, found by the names of the official lists.

    Args:
        root (str | Path): The folder: that of the class folders, or one above it.

    Raises:
        UserError: If it does not exist or has no videos.
    """

    def __init__(self, root: str | Path):
        self.root = root
        self._by_stem = defaultdict(list)
        self.found = find_videos(root)
        for path in self.found.paths:
            self._by_stem[video_stem(path).casefold()].append(path)

    def find(self, listed: str) -> str | None:
        """Return the file that a list means, or None.

        Args:
            listed (str): Such as ``HandstandPushups/v_HandStandPushups_g01_c01.avi``.

        Returns:
            str | None: The path below the folder, such as
            ``HandStandPushups/v_HandStandPushups_g01_c01.mp4``. Of several, one that is
            neither empty nor cut short; of those, as listed if it is there, else with
            another suffix or case, in the folder of its class, or in none.
        """
        found = self._by_stem.get(video_stem(listed).casefold(), ())
        folder = listed.split("/")[0].casefold()

        def rank(path: str) -> tuple:
            parents = path.casefold().split("/")[:-1]
            return (
                path != listed,
                parents[-1:] != [folder],
                not path.endswith(Path(listed).suffix),
                path,
            )

        return best_copy(self.root, {path: rank(path) for path in found})


def build_annotations(
    splits: str | Path,
    out: str | Path,
    *,
    videos: str | Path | None = None,
    numbers: Sequence[int] = SPLITS,
    delimiter: str | None = None,
    require_all: bool = False,
) -> list[str]:
    """Write ``ucf101_{train,val}_split_{1,2,3}_videos.txt`` and the list of classes.

    Args:
        splits (str | Path): Folder of the official lists.
        out (str | Path): Folder to write to.
        videos (str | Path, optional): Folder of the videos. Those that are not there
            are left out of the lists and listed in ``ucf101_missing.csv``. Without
            it, the lists have the official names.
        numbers (Sequence[int]): Which splits.
        delimiter (str, optional): What separates path and label.
        require_all (bool): Write nothing if a video is missing.

    Returns:
        list[str]: A summary, one line each.

    Raises:
        UserError: If a list is missing or malformed, or no video is found.
    """
    splits, out = _splits_folder(Path(splits)), Path(out)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; give the folder to write to.")
    classes = read_classes(splits / CLASS_FILE)
    lists = {
        (part, number): read_split(splits / name.format(number), classes)
        for number in numbers
        for part, name in PARTS.items()
    }
    missing: dict[str, int] = {}
    skipped: list[str] = []
    written = {
        key: [(video.path, video.label) for video in listed]
        for key, listed in lists.items()
    }
    if videos is not None:
        files = UCF101Videos(videos)
        skipped = files.found.skipped()
        written, missing = _resolve(lists, files)
        _check_found(lists, written, missing, videos, skipped, require_all)
    paths = [path for entries in written.values() for path, _ in entries]
    delimiter = choose_delimiter(paths, delimiter)

    summary = []
    for (part, number), entries in written.items():
        target = out / OUT_NAME.format(part, number)
        write_video_list(target, entries, delimiter)
        of = len(lists[part, number])
        count = f"{len(entries)}" if len(entries) == of else f"{len(entries)} of {of}"
        summary.append(f"{target}: {count} videos")
    write_text(out / CLASSES_OUT, "".join(f"{name}\n" for name in classes))
    summary.append(f"{out / CLASSES_OUT}: {len(classes)} classes")
    summary += _report_missing(out / MISSING_OUT, missing, videos) + skipped
    hint = delimiter_hint(delimiter, "train_dataloader val_dataloader test_dataloader")
    return summary + ([hint] if hint else [])


def _resolve(lists: dict, files: UCF101Videos) -> tuple[dict, dict[str, int]]:
    found, missing = {}, {}
    for listed in lists.values():
        for video in listed:
            if video.path not in found:
                found[video.path] = files.find(video.path)
                if found[video.path] is None:
                    missing[video.path] = video.label
    written = {
        key: [(found[x.path], x.label) for x in listed if found[x.path] is not None]
        for key, listed in lists.items()
    }
    return written, missing


def _check_found(
    lists: dict,
    written: dict,
    missing: dict,
    videos: str | Path,
    skipped: list[str],
    require_all: bool,
) -> None:
    names = ", ".join(list(missing)[:EXAMPLES])
    if not any(written.values()):
        raise UserError(
            f"None of the {len(missing)} listed videos is below {videos}; looked for "
            f"{names} and so on, with any suffix of a video and in any folder. "
            f"{' '.join(skipped)}".rstrip()
        )
    if missing and require_all:
        raise UserError(
            f"{len(missing)} listed videos are not below {videos}, such as {names}; "
            "without --require-all they are left out of the lists."
        )
    for (part, number), entries in written.items():
        if not entries and lists[part, number]:
            raise UserError(
                f"None of the videos of the {part} list of split {number} is below "
                f"{videos}; choose other splits with --split."
            )


def _report_missing(
    target: Path, missing: dict[str, int], videos: str | Path | None
) -> list[str]:
    if not missing:
        if videos is not None:
            target.unlink(missing_ok=True)  # of an earlier run
        return []
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerows([("video", "label"), *missing.items()])
    write_text(target, text.getvalue())
    return [
        f"Missing: {len(missing)} of the listed videos are not below {videos} and were "
        f"left out; they are in {target}"
    ]


def _splits_folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise UserError(f"The folder of the official lists {folder} does not exist.")
    inner = folder / ARCHIVE_FOLDER
    if not (folder / CLASS_FILE).exists() and (inner / CLASS_FILE).exists():
        return inner
    return folder


def _lines(path: Path) -> list[tuple[int, str]]:
    if not path.is_file():
        raise UserError(
            f"The official list {path} does not exist; --splits is the folder of "
            f"{CLASS_FILE}, trainlist01.txt, testlist01.txt and so on (with --split 1 "
            "those of one split are enough)."
        )
    lines = read_text(path, "official list").splitlines()
    lines = [(n, line.strip()) for n, line in enumerate(lines, 1) if line.strip()]
    if not lines:
        raise UserError(f"The official list {path} is empty.")
    return lines


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line of ``tools/data/ucf101/build_annotations.py``.

    Args:
        argv (Sequence[str], optional): Arguments; by default those of the process.

    Returns:
        argparse.Namespace: The arguments.
    """
    parser = argparse.ArgumentParser(
        description="Write MMAction2's lists of UCF-101 from the official ones."
    )
    parser.add_argument(
        "--splits",
        required=True,
        metavar="DIR",
        help=f"folder of {CLASS_FILE}, trainlist0N.txt and testlist0N.txt",
    )
    parser.add_argument(
        "--videos",
        metavar="DIR",
        help="folder of the videos, to list what is there; default: do not look",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="where to write")
    parser.add_argument(
        "--split",
        nargs="+",
        type=int,
        choices=SPLITS,
        default=list(SPLITS),
        help="which splits; default all three",
    )
    parser.add_argument(
        "--require-all",
        action="store_true",
        help="write nothing if a listed video is missing",
    )
    parser.add_argument(
        "--delimiter",
        help="between path and label; default a space, or ';' if a path has spaces",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the lists of UCF-101 from the command line.

    Args:
        argv (Sequence[str], optional): Arguments; by default those of the process.

    Raises:
        SystemExit: With status 2 and one sentence if the arguments cannot work.
    """
    args = parse_args(argv)
    with user_errors():
        expect_outputs(folders={"--out": args.out})
        summary = build_annotations(
            args.splits,
            args.out,
            videos=args.videos,
            numbers=args.split,
            delimiter=args.delimiter,
            require_all=args.require_all,
        )
    print("\n".join(summary))
