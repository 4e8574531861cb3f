"""Bookends: generated videos that can only be classified with global context.

A clip shows one disc in its first half and one disc in its second half. The label
says whether the two have the same colour (1) or not (0). Taken alone, no frame says
anything about the label: in each half and each class every colour is equally
frequent, and places, sizes, drifts and backgrounds are drawn without looking at the
label. So a score that is the average of scores of single frames has nothing to learn:
chance, 0.5, is the optimum of its cross-entropy; the frames have to be compared.

Such a score can still be above or below chance by accident: if half of the colours
score high, two high discs are more frequent among equal than among different colours.
The most that this can give is an accuracy of 0.67 with four colours, 0.64 with eight;
with more colours the accident is smaller, and much rarer. Hence the eight.

At level 2 each half also shows two small discs, which are to be ignored: none has the
colour of its half's large disc, and where those differ, often one has that of the
other half's. They too are drawn without looking at the label.
"""

import argparse
import contextlib
import functools
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from polynl_mm.atomic_files import renamed_when_complete, write_json
from polynl_mm.datasets.isolated_workers import run_isolated
from polynl_mm.text_files import parse_json, read_text
from polynl_mm.user_errors import UserError, user_errors

CLASSES = ("different", "same")
SPLITS = ("train", "val")
SECONDS_FOR_A_CLIP = 600  # a process that takes longer hangs
LEVELS = (1, 2)
DISTRACTORS = {1: 0, 2: 2}  # small discs in each half, by level
PALETTE = {
    "red": (220, 40, 40),
    "green": (40, 190, 50),
    "blue": (50, 70, 225),
    "yellow": (235, 215, 40),
    "magenta": (215, 60, 215),
    "cyan": (50, 215, 215),
    "white": (245, 245, 245),
    "black": (10, 10, 10),
}
# decord 0.6.0 raises "size mismatch" on batches of frames of these widths.
UNREADABLE_SIZES = (48, 72)
FRAME_RATE = 8.0
PARAMETERS_FILE = "bookends.json"
CLIP_NAME = re.compile(r"\d{6,}\.mp4")  # what Clip.path gives


@dataclass(frozen=True)
class BookendsParameters:
    """Everything that decides what a Bookends data set looks like.

    Args:
        train (int): Number of training clips, at least 2.
        val (int): Number of validation clips, at least 2.
        frames (int): Frames per clip, at least 2.
        size (int): Height and width in pixels: even, from 32 to 512, and not 48
            or 72, which decord 0.6.0 cannot read.
        colours (Sequence[str]): Two or more different names of ``PALETTE``.
        gap (int): Frames in the middle of the clip that show no disc, from 0 to
            ``frames - 2``.
        seed (int): Seed of all that is random, at least 0. Each clip draws from a
            generator of its own, so it does not depend on the other clips.
        level (int): 1, or 2 with small discs of other colours beside the large ones.
            What level 1 shows, level 2 shows at the same places.

    Raises:
        ValueError: If a value is not in its range; the message names both.
    """

    train: int = 2000
    val: int = 480
    frames: int = 16
    size: int = 64
    colours: Sequence[str] = tuple(PALETTE)
    gap: int = 2
    seed: int = 0
    level: int = 1

    def __post_init__(self):
        object.__setattr__(self, "colours", tuple(self.colours))
        least_values = {"train": 2, "val": 2, "frames": 2, "gap": 0, "seed": 0}
        for name, least in least_values.items():
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"{name} must be {least} or more, not {value}")
        if self.gap > self.frames - 2:
            raise ValueError(
                f"gap must leave a frame at each end: at most {self.frames - 2} of "
                f"{self.frames} frames, not {self.gap}"
            )
        if not 32 <= self.size <= 512 or self.size % 2:
            raise ValueError(
                f"size must be an even number from 32 to 512, not {self.size}"
            )
        if self.size in UNREADABLE_SIZES:
            raise ValueError(
                f"size {self.size} gives videos that decord 0.6.0 cannot read; "
                "take 32, 56, 64 or 80, for example"
            )
        if self.level not in LEVELS:
            raise ValueError(
                f"level must be {' or '.join(map(str, LEVELS))}, not {self.level}"
            )
        unknown = [name for name in self.colours if name not in PALETTE]
        if unknown:
            raise ValueError(
                f"colours has {', '.join(map(repr, unknown))}, known are "
                f"{', '.join(PALETTE)}"
            )
        if len(set(self.colours)) != len(self.colours) or len(self.colours) < 2:
            raise ValueError(
                "colours must be two or more different names, not "
                f"{' '.join(self.colours) or 'none'}"
            )


@dataclass(frozen=True)
class Clip:
    """What one clip is: its file, its label and the colours of its two discs."""

    split: str
    index: int
    label: int
    first: str
    last: str

    @property
    def path(self) -> str:
        """File name relative to the data folder."""
        return f"{self.split}/{self.index:06d}.mp4"


@dataclass(frozen=True)
class Disc:
    """One of a clip's discs.

    Args:
        colour (str): A name of ``PALETTE``.
        radius (float): In pixels.
        centres (dict[int, tuple[float, float]]): For each frame that shows it, its row
            and column.
    """

    colour: str
    radius: float
    centres: dict[int, tuple[float, float]]


def plan_clips(parameters: BookendsParameters, split: str) -> list[Clip]:
    """Give each clip of a split its label and colours, all of them balanced.

    Labels alternate. Within a label the combinations of colours take turns, so that
    first and last discs of either class show every colour equally often (up to one
    incomplete turn).

    Args:
        parameters (BookendsParameters): What to generate.
        split (str): ``'train'`` or ``'val'``.

    Returns:
        list[Clip]: The clips in the order of their index.
    """
    pairs = (
        list(itertools.permutations(parameters.colours, 2)),
        [(colour, colour) for colour in parameters.colours],
    )
    clips = []
    for index in range(getattr(parameters, split)):
        turn, label = divmod(index, len(CLASSES))
        first, last = pairs[label][turn % len(pairs[label])]
        clips.append(Clip(split, index, label, first, last))
    return clips


def render_clip(parameters: BookendsParameters, clip: Clip) -> np.ndarray:
    """Draw the frames of a clip.

    Args:
        parameters (BookendsParameters): Frames, size, gap and seed.
        clip (Clip): Which clip.

    Returns:
        np.ndarray: RGB frames, uint8, of shape (T, H, W, 3).
    """
    grey, noise, discs, distractors = _draw_lots(parameters, clip)
    frames, size = parameters.frames, parameters.size
    video = np.full((frames, size, size, 3), grey)  # (T, H, W, 3)
    rows, columns = np.mgrid[:size, :size]
    for disc in (*distractors, *discs):  # the large ones cover the small ones
        for time, (row, column) in disc.centres.items():
            distance = np.hypot(rows - row, columns - column)
            cover = np.clip(disc.radius + 0.5 - distance, 0, 1)[..., None]  # (H, W, 1)
            video[time] += cover * (np.array(PALETTE[disc.colour]) - video[time])
    return np.clip(np.rint(video) + noise, 0, 255).astype(np.uint8)


def discs_of(parameters: BookendsParameters, clip: Clip) -> tuple[Disc, Disc]:
    """Return the discs of a clip, and where they are: of its first and second half.

    Args:
        parameters (BookendsParameters): Frames, size, gap and seed.
        clip (Clip): Which clip.

    Returns:
        tuple[Disc, Disc]: The first and the last.
    """
    return _draw_lots(parameters, clip)[2]


def distractors_of(parameters: BookendsParameters, clip: Clip) -> tuple[Disc, ...]:
    """Return the small discs of a clip, those of its first half before the others.

    Args:
        parameters (BookendsParameters): Frames, size, gap, seed and level.
        clip (Clip): Which clip.

    Returns:
        tuple[Disc, ...]: None at level 1.
    """
    return _draw_lots(parameters, clip)[3]


def _draw_lots(
    parameters: BookendsParameters, clip: Clip
) -> tuple[float, np.ndarray, tuple[Disc, Disc], tuple[Disc, ...]]:
    """Return all that is random in a clip: background, noise, discs, small discs."""
    rng = np.random.default_rng([parameters.seed, SPLITS.index(clip.split), clip.index])
    frames, size = parameters.frames, parameters.size
    grey = rng.uniform(80, 150)
    noise = rng.integers(-16, 17, (frames, size, size, 1), dtype=np.int16)

    shown = (frames - parameters.gap) // 2
    halves = ((clip.first, range(shown)), (clip.last, range(frames - shown, frames)))
    discs = tuple(
        _draw_disc(rng, colour, (0.16, 0.22), times, size) for colour, times in halves
    )
    # After all that level 1 draws, which level 2 shows unchanged.
    distractors = []
    for colour, times in halves:
        others = [name for name in parameters.colours if name != colour]
        for _ in range(DISTRACTORS[parameters.level]):
            other = others[rng.integers(len(others))]
            distractors.append(_draw_disc(rng, other, (0.07, 0.1), times, size))
    return grey, noise, discs, tuple(distractors)


def _draw_disc(
    rng: np.random.Generator,
    colour: str,
    radii: tuple[float, float],
    times: Sequence[int],
    size: int,
) -> Disc:
    """Draw a disc's radius, between parts of the picture's size, and its path."""
    radius = rng.uniform(*radii) * size
    # Both ends of the straight path are inside the picture, hence all of it.
    start = rng.uniform(radius, size - 1 - radius, 2)
    drift = rng.uniform(-0.25, 0.25, 2) * size
    stop = np.clip(start + drift, radius, size - 1 - radius)
    parts = zip(times, np.linspace(0, 1, len(times)), strict=True)
    centres = {time: tuple(start + part * (stop - start)) for time, part in parts}
    return Disc(colour, radius, centres)


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
    writer = cv2.VideoWriter(str(path), codec, FRAME_RATE, (width, height))
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    reader = cv2.VideoCapture(str(path))
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
        # Not concurrent.futures: a Ctrl-C that meets one of its locks when it has just
        # been taken leaves it so, and the pool then waits for itself without end.
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
