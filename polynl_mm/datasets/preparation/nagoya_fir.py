"""The Nagoya FIR actions: from a clone of their repository to frames and lists.

Kawashima et al., "Action Recognition from Extremely Low-Resolution Thermal Image
Sequence", AVSS 2017: nine people, five actions, 16 x 16 pixels from the ceiling, ten
frames a second. The data are licensed CC BY-NC-SA 4.0 and no part of this package.

Of each recording the median over time is subtracted, pixel by pixel: it is the empty
room, since people move. A grey value is 128 plus 12 for each degree Celsius above it,
so that 0 to 255 are -10.7 to +10.6 degrees.
"""

import argparse
import csv
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from polynl_mm.atomic_files import expect_outputs
from polynl_mm.datasets.preparation.video_lists import write_text
from polynl_mm.file_names import utf8_name
from polynl_mm.text_files import read_text
from polynl_mm.user_errors import UserError, user_errors

CLASSES = ("walk", "sitdown", "standup", "falling", "stopping")
# The annotations' own names that are not a class, with a number behind it or not.
MERGED = {"sit": "stopping", "lie": "stopping", "stand": "stopping"}
PEOPLE = range(1, 10)
FOLDS = {f"person{person}": (person,) for person in PEOPLE}
FOLDS |= {f"three{i + 1}": tuple(range(3 * i + 1, 3 * i + 4)) for i in range(3)}
SIZE = 16
PER_DEGREE = 12
TEMPLATE = "img_{:05}.png"
ATTRIBUTION = """\
Frames made from the Low-Resolution FIR Action Dataset (muralab), CC BY-NC-SA 4.0:
Kawashima et al., "Action Recognition from Extremely Low-Resolution Thermal Image
Sequence", AVSS 2017. They may be shared under the same licence only.
"""


@dataclass(frozen=True)
class Clip:
    """An annotated action.

    Attributes:
        recording (str): The file that it is cut from, such as
            ``20170203_p1_light1.csv``.
        first (int): Its first frame, from 0.
        last (int): Its last frame.
        label (int): The index of its class in ``CLASSES``.
        person (int): 1 to 9.
    """

    recording: str
    first: int
    last: int
    label: int
    person: int

    @property
    def name(self) -> str:
        """The name of its folder of frames."""
        return f"{Path(self.recording).stem}_{self.first}_{self.person}"


def read_clips(clone: Path) -> list[Clip]:
    """Read the annotations of a clone.

    Args:
        clone (Path): The folder of the clone.

    Returns:
        list[Clip]: All annotated actions.

    Raises:
        UserError: If there are none, or a line is malformed.
    """
    clips = []
    files = sorted(clone.rglob("annotation_*_human.csv"))
    if not files:
        raise UserError(
            f"{clone} has no annotation_*_human.csv; give the folder of a clone of the "
            "Low-Resolution FIR Action Dataset."
        )
    for file in files:
        lines = read_text(file, "annotation").splitlines()
        for number, row in enumerate(csv.reader(lines), start=1):
            try:
                name, first, last, action, person = row
                label = label_of(action)
                clip = Clip(name, int(first), int(last), label, int(person[5:]))
                valid = 0 <= clip.first <= clip.last and clip.person in PEOPLE
            except ValueError:
                valid = False
            if not valid:
                raise UserError(
                    f"{file}, line {number}: a line is 'file,first frame,last frame,"
                    f"action,humanN' with N from 1 to 9, not {','.join(row)[:80]!r}."
                )
            clips.append(clip)
    return clips


def label_of(action: str) -> int:
    """Return the label of an action as the annotations name it.

    Args:
        action (str): Such as ``"walk1"``, ``"falling2"`` or ``"sit"``.

    Returns:
        int: Its index in ``CLASSES``; sitting, lying and standing are ``stopping``.

    Raises:
        ValueError: If it is none of the data set's.
    """
    name = action.strip().rstrip("0123456789")
    return CLASSES.index(MERGED.get(name, name))


def read_recording(file: Path) -> np.ndarray:
    """Read the temperatures of a recording.

    Args:
        file (Path): Its CSV: the start time, the names of the columns, then a line for
            each frame: time, the sensor's own temperature, and 16 x 16 pixels.

    Returns:
        np.ndarray: (T, 16, 16), degrees Celsius, float32.

    Raises:
        UserError: If it is not of that form.
    """
    lines = read_text(file, "recording").splitlines()[2:]
    try:
        table = np.loadtxt(lines, dtype=np.float32, delimiter=",", ndmin=2)
    except ValueError as error:
        raise UserError(f"The recording {file} is damaged: {error}") from error
    if table.shape[1:] != (2 + SIZE**2,) or not np.isfinite(table).all():
        raise UserError(
            f"The recording {file} is damaged: a line has {2 + SIZE**2} numbers, and "
            f"here {table.shape[1] if table.size else 0}, or some that are not finite."
        )
    return table[:, 2:].reshape(-1, SIZE, SIZE)


def open_clone(clone: Path) -> tuple[list[Clip], Callable[[str], np.ndarray]]:
    """Open a clone of the public repository.

    Args:
        clone (Path): Its folder.

    Returns:
        tuple[list[Clip], Callable[[str], np.ndarray]]: What is annotated, and a
        function that reads a recording by its name.

    Raises:
        UserError: If recordings are missing; the sentence names them.
    """
    clips = read_clips(clone)
    files = {file.name: file for file in sorted(clone.rglob("raw/*.csv"))}
    missing = sorted({clip.recording for clip in clips} - set(files))
    if missing:
        raise UserError(
            f"{clone} lacks {len(missing)} of the recordings that are annotated, "
            f"such as {', '.join(missing[:3])} (DATE/raw/*.csv); clone it again."
        )
    return clips, lambda name: read_recording(files[name])


def open_archive(archive: Path) -> tuple[list[Clip], Callable[[str], np.ndarray]]:
    """Open the same content in one file, as the tests of this package have it.

    Args:
        archive (Path): An ``.npz`` with ``frames`` (in 1/320 degree), ``lengths``,
            ``names`` and the columns of the annotations.

    Returns:
        tuple[list[Clip], Callable[[str], np.ndarray]]: As :func:`open_clone`.
    """
    content = dict(np.load(archive, allow_pickle=False))
    ends = content["lengths"].cumsum()
    starts = dict(zip(content["names"], ends - content["lengths"], strict=True))
    stops = dict(zip(content["names"], ends, strict=True))
    columns = (content[f"ann_{c}"] for c in ("file", "start", "end", "label", "person"))
    clips = [
        Clip(str(file), int(first), int(last), label_of(str(action)), int(person))
        for file, first, last, action, person in zip(*columns, strict=True)
    ]
    frames = content["frames"]

    def read(name: str) -> np.ndarray:
        return frames[starts[name] : stops[name]].astype(np.float32) / 320

    return clips, read


def to_grey(recording: np.ndarray) -> np.ndarray:
    """Turn temperatures into grey values, without the empty room.

    Args:
        recording (np.ndarray): (T, 16, 16), degrees Celsius.

    Returns:
        np.ndarray: The same shape, uint8: 128 plus 12 for each degree above the
        recording's median of that pixel.
    """
    warmer = recording - np.median(recording, axis=0)
    return np.rint(128 + PER_DEGREE * warmer).clip(0, 255).astype(np.uint8)


def write_frames(clips: Sequence[Clip], read: Callable, out: Path) -> None:
    """Write the frames of all clips; what is there whole is kept.

    Args:
        clips (Sequence[Clip]): What is annotated.
        read (Callable): Reads a recording by its name.
        out (Path): For each clip a folder in it.

    Raises:
        UserError: If a clip ends after its recording, or ``out`` cannot be written to.
    """
    by_recording: dict[str, list[Clip]] = {}
    for clip in clips:
        if not (out / clip.name).is_dir():
            by_recording.setdefault(clip.recording, []).append(clip)
    for name in tqdm(sorted(by_recording), desc="Nagoya FIR", unit="recording"):
        grey = to_grey(read(name))
        for clip in by_recording[name]:
            if clip.last >= len(grey):
                raise UserError(
                    f"The recording {name} is cut short: it has {len(grey)} frames, "
                    f"and an action of it ends at frame {clip.last}."
                )
            partial = out / f".{clip.name}.part"
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            for number, frame in enumerate(grey[clip.first : clip.last + 1], start=1):
                picture = partial / TEMPLATE.format(number)
                if not cv2.imwrite(utf8_name(picture), frame):
                    raise UserError(f"{partial} cannot be written to.")
            os.replace(partial, out / clip.name)


def write_lists(clips: Sequence[Clip], out: Path) -> None:
    """Write the lists of every fold, and the names of the classes.

    Args:
        clips (Sequence[Clip]): What is annotated.
        out (Path): Where to.
    """
    for fold, held_out in FOLDS.items():
        for part, tested in (("train", False), ("test", True)):
            lines = [
                f"{clip.name} {clip.last - clip.first + 1} {clip.label}\n"
                for clip in clips
                if (clip.person in held_out) == tested
            ]
            write_text(out / f"{fold}_{part}.txt", "".join(lines))
    write_text(out / "classes.txt", "".join(f"{name}\n" for name in CLASSES))
    write_text(out / "ATTRIBUTION.txt", ATTRIBUTION)


def count_classes(clips: Sequence[Clip]) -> Iterator[tuple[str, int]]:
    """Yield each class with the number of its clips."""
    for label, name in enumerate(CLASSES):
        yield name, sum(clip.label == label for clip in clips)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line.

    Args:
        argv (Sequence[str], optional): Arguments; by default those of the process.

    Returns:
        argparse.Namespace: The arguments.
    """
    parser = argparse.ArgumentParser(
        description="Write the frames of the Nagoya FIR actions, and the lists of nine "
        "folds (personN: that person is tested) and three (threeN: three people are). "
        "An interrupted run goes on where it stopped."
    )
    parser.add_argument("clone", type=Path, help="a clone of the public repository")
    parser.add_argument("--out", type=Path, default=Path("data/nagoya_fir"))
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare the data set.

    Args:
        argv (Sequence[str], optional): Arguments; by default those of the process.
    """
    args = parse_args(argv)
    with user_errors():
        expect_outputs(folders={"--out": args.out})
        if not args.clone.exists():
            raise UserError(
                f"{args.clone} does not exist; give the folder of a clone of the "
                "Low-Resolution FIR Action Dataset."
            )
        opened = open_archive if args.clone.suffix == ".npz" else open_clone
        clips, read = opened(args.clone)
        write_frames(clips, read, args.out / "frames")
        write_lists(clips, args.out)
        counted = ", ".join(f"{name} {count}" for name, count in count_classes(clips))
        print(
            f"{len(clips)} clips of {len({c.person for c in clips})} people in "
            f"{args.out}: {counted}."
        )


if __name__ == "__main__":
    main()
