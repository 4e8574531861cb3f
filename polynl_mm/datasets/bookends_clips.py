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

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CLASSES = ("different", "same")
SPLITS = ("train", "val")
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
