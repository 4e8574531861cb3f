"""Bookends as files: videos, lists, interrupted runs, and the command line."""

import argparse
import contextlib
import functools
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from tqdm import tqdm

from polynl_mm.atomic_files import renamed_when_complete, write_json
from polynl_mm.datasets.bookends_clips import (
    PALETTE,
    SPLITS,
    BookendsParameters,
    Clip,
    plan_clips,
    render_clip,
)
from polynl_mm.datasets.isolated_workers import run_isolated
from polynl_mm.file_names import utf8_name
from polynl_mm.text_files import parse_json, read_text
from polynl_mm.user_errors import UserError, user_errors

SECONDS_FOR_A_CLIP = 600  # a process that takes longer hangs
FRAME_RATE = 8.0
PARAMETERS_FILE = "bookends.json"
CLIP_NAME = re.compile(r"\d{6,}\.mp4")  # what Clip.path gives


def write_video(path: Path, frames: np.ndarray) -> None:
    """Write frames to an mp4 file and check that the file holds all of them.

    Args:
        path (Path): File to write.
        frames (np.ndarray): RGB frames, uint8, of shape (T, H, W, 3).

    Raises:
        OSError: If the file could not be written, for instance on a full disk.
    """
    import cv2

    count, height, width, _ = frames.shape
    codec = cv2.VideoWriter_fourcc(*"mp4v")
    writer = cv2.VideoWriter(utf8_name(path), codec, FRAME_RATE, (width, height))
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    reader = cv2.VideoCapture(utf8_name(path))
    written = int(reader.get(cv2.CAP_PROP_FRAME_COUNT)) if reader.isOpened() else 0
    reader.release()
    if written != count:
        raise OSError(
            f"{path} holds {written} of {count} frames: is the disk full, or OpenCV "
            "built without mp4 support?"
        )


def _make_clip(root: Path, parameters: BookendsParameters, clip: Clip) -> None:
    with renamed_when_complete(root / clip.path) as partial:
        write_video(partial, render_clip(parameters, clip))


def _make_clips(
    root: Path, parameters: BookendsParameters, clips: list[Clip], jobs: int
) -> None:
    progress = tqdm(total=len(clips), desc="Bookends", unit="clip")
    with progress:
        if jobs == 1:
            for clip in clips:
                _make_clip(root, parameters, clip)
                progress.update()
            return
        make = functools.partial(_make_clip, root, parameters)
        outcomes = run_isolated(make, clips, jobs, SECONDS_FOR_A_CLIP)
        with contextlib.closing(outcomes):
            for outcome in outcomes:
                if outcome.failure:
                    path = root / outcome.item.path
                    raise UserError(f"{path} could not be made: {outcome.failure}")
                progress.update()


def _check_folder(root: Path, parameters: BookendsParameters, overwrite: bool) -> None:
    """Refuse a folder that holds something else than a part of this data set."""
    path = root / PARAMETERS_FILE
    wanted = json.loads(json.dumps(asdict(parameters)))
    if root.exists() and not root.is_dir():
        raise ValueError(f"{root} is a file; give a folder to generate the data in")
    if path.is_file():
        try:
            found = parse_json(read_text(path, "record"), str(path))
        except json.JSONDecodeError:
            found = {}
        found = found if isinstance(found, dict) else {}
        found.setdefault("level", 1)  # made before there were levels
        if found == wanted:
            return
        if not overwrite:
            different = [
                f"{name} {found.get(name)!r} instead of {wanted[name]!r}"
                for name in wanted
                if found.get(name) != wanted[name]
            ]
            raise ValueError(
                f"{root} was generated with {', '.join(different)}; choose another "
                "folder, or replace it with --overwrite"
            )
    elif root.is_dir() and any(root.iterdir()):
        raise ValueError(
            f"{root} is not empty and has no {PARAMETERS_FILE}, so its files are not "
            "Bookends', and not even --overwrite replaces them; choose another folder"
        )


def generate_bookends(
    root: str | Path,
    parameters: BookendsParameters | None = None,
    *,
    jobs: int = 1,
    overwrite: bool = False,
) -> Path:
    """Generate a Bookends data set, or what is still missing of it.

    Interrupted runs go on where they stopped: complete videos are kept, videos under
    way are renamed into place when they are complete, and the annotation lists are
    written last. Run it once at a time in one folder.

    Args:
        root (str | Path): Folder to generate: ``train/*.mp4`` and ``val/*.mp4``, the
            annotation lists ``train.txt`` and ``val.txt`` of MMAction2's
            ``VideoDataset`` (relative path, space, label) and ``bookends.json``
            (the parameters).
        parameters (BookendsParameters, optional): What to generate.
        jobs (int): Number of processes, at least 1.
        overwrite (bool): Replace the videos of a folder that was made with other
            parameters.

    Returns:
        Path: The folder.

    Raises:
        ValueError: If the folder holds something else, cannot be written, or ``jobs``
            is not positive.
    """
    parameters = parameters or BookendsParameters()
    if jobs < 1:
        raise ValueError(f"jobs must be 1 or more, not {jobs}")
    root = Path(root)
    _check_folder(root, parameters, overwrite)
    try:
        _generate_missing(root, parameters, jobs, overwrite)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"The data could not be written to {root}: {error}") from error
    return root


def _generate_missing(
    root: Path, parameters: BookendsParameters, jobs: int, overwrite: bool
) -> None:
    clips = {split: plan_clips(parameters, split) for split in SPLITS}
    root.mkdir(parents=True, exist_ok=True)
    if overwrite:
        _remove_contents(root)
    # Before anything else is made: it marks the folder as one to go on in.
    write_json(root / PARAMETERS_FILE, asdict(parameters))
    for split in SPLITS:
        (root / split).mkdir(exist_ok=True)

    missing = [
        clip
        for clip in itertools.chain.from_iterable(clips.values())
        if not (root / clip.path).is_file()
    ]
    if missing:
        _make_clips(root, parameters, missing, jobs)
    for split in SPLITS:
        # What a killed run left under way.
        for leftover in (root / split).glob(".*.mp4"):
            leftover.unlink()
        lines = (f"{clip.path} {clip.label}\n" for clip in clips[split])
        with renamed_when_complete(root / f"{split}.txt") as partial:
            partial.write_text("".join(lines), encoding="utf-8")


def _remove_contents(root: Path) -> None:
    for split in SPLITS:
        # The list first: a list always stands for complete data.
        (root / f"{split}.txt").unlink(missing_ok=True)
        for video in (root / split).glob("*.mp4"):
            if CLIP_NAME.fullmatch(video.name):
                video.unlink()


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line of ``tools/data/bookends/generate.py``.

    Args:
        argv (Sequence[str], optional): Arguments; by default those of the process.

    Returns:
        argparse.Namespace: The arguments.
    """
    default = BookendsParameters()
    parser = argparse.ArgumentParser(
        description="Generate Bookends: videos whose label is whether the discs at "
        "the start and at the end have the same colour.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("root", nargs="?", default="data/bookends", help="folder")
    for name, text in {
        "train": "training clips",
        "val": "validation clips",
        "frames": "frames per clip",
        "size": "height and width in pixels",
        "gap": "frames without a disc in the middle of a clip",
        "seed": "seed of everything random",
        "level": "1, or 2 with small discs of other colours, which are to be ignored",
    }.items():
        value = getattr(default, name)
        parser.add_argument(f"--{name}", type=int, default=value, help=text)
    parser.add_argument(
        "--colours",
        nargs="+",
        metavar="NAME",
        default=list(default.colours),
        help=f"two or more of {', '.join(PALETTE)}",
    )
    parser.add_argument("-j", "--jobs", type=int, default=1, help="processes")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace a data set that was made with other parameters",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Generate Bookends from the command line.

    Args:
        argv (Sequence[str], optional): Arguments; by default those of the process.

    Raises:
        SystemExit: With status 2 and one sentence if the arguments cannot work.
    """
    args = vars(parse_args(argv))
    root, jobs, overwrite = (args.pop(key) for key in ("root", "jobs", "overwrite"))
    with user_errors():
        parameters = BookendsParameters(**args)
        generate_bookends(root, parameters, jobs=jobs, overwrite=overwrite)
    print(
        f"{root}: {parameters.train} training and {parameters.val} validation clips, "
        "lists in train.txt and val.txt"
    )
