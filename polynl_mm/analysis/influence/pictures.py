"""Maps drawn over a video's own frames: a film strip and a film."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from polynl_mm.analysis.influence.overlay import over_frame, to_input
from polynl_mm.atomic_files import renamed_when_complete
from polynl_mm.file_names import utf8_name
from polynl_mm.recognizers.traced_clip import TracedClip
from polynl_mm.stack.literal_texts import literal_texts
from polynl_mm.user_errors import UserError

MOST_FRAMES = 8
# A frame of the film strip, and of the film, is not wider than this.
STRIP_WIDTH, FILM_WIDTH = 320, 640
SEEN_PERCENT = 99.5
MARK = "#ffd400"  # seen on both ends of the colour maps, and on most frames


@dataclass
class Band:
    """A map over the clip, and how to draw it.

    Attributes:
        title (str): What it shows.
        unit (str): What the colour bar counts.
        values (np.ndarray): (T', H', W').
        signed (bool): Whether both signs mean something.
    """

    title: str
    unit: str
    values: np.ndarray
    signed: bool

    @property
    def colours(self) -> str:
        """The name of its colour map, which the colour-blind can read, too."""
        return "RdBu_r" if self.signed else "inferno"

    @property
    def limits(self) -> tuple[float, float]:
        """The values at the ends of the colour bar.

        A few positions may be beyond them: often the position itself outweighs all
        others, which would then not be seen.
        """
        sizes = np.abs(self.values)
        most = float(np.percentile(sizes, SEEN_PERCENT) or sizes.max()) or 1.0
        return (-most if self.signed else 0.0), most

    def paint(self, values: np.ndarray) -> np.ndarray:
        """Return colours, RGBA from 0 to 1, that show the frame where little is."""
        import matplotlib

        low, high = self.limits
        painted = matplotlib.colormaps[self.colours](
            np.nan_to_num((values - low) / (high - low))
        )
        strength = np.abs(np.nan_to_num(values)) / high
        painted[..., 3] = 0.85 * np.clip(strength, 0, 1)
        return painted


@literal_texts()
def draw_strip(
    clip: TracedClip,
    bands: Sequence[Band],
    path: str | Path,
    *,
    title: str,
    mark: tuple[int, float, float] | None = None,
) -> None:
    """Draw maps over the frames of a clip, one row of frames for each map.

    Args:
        clip (TracedClip): The clip.
        bands (Sequence[Band]): The maps.
        path (str | Path): The picture to write, PNG.
        title (str): What stands above.
        mark (tuple[int, float, float], optional): A place to mark: the frame's number
            in the clip, x and y in pixels of the video.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    strongest = np.abs(bands[0].values).max(axis=(1, 2)).argmax()
    peak = round(to_input((strongest, 0, 0), clip.size, bands[0].values.shape)[0])
    numbers = choose_frames(len(clip.frames), [mark[0], peak] if mark else [peak])
    height, width = clip.frames[0].shape[:2]
    inches = 1.7  # a frame's width
    figure = Figure(
        figsize=(
            inches * len(numbers) + 1.1,
            (inches * height / width + 0.2) * (1 + len(bands)) + 0.6,
        ),
        dpi=150,
        layout="constrained",
    )
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=9)
    grid = figure.subplots(1 + len(bands), len(numbers), squeeze=False)
    for row, band in zip(grid, (None, *bands), strict=True):
        for axes, number in zip(row, numbers, strict=True):
            axes.imshow(_blend(clip, band, number, STRIP_WIDTH))
            axes.set(xticks=[], yticks=[])
            if mark and number == mark[0]:
                _draw_mark(axes, mark, _shrink(width, STRIP_WIDTH))
        row[0].set_ylabel(band.title if band else "video", fontsize=7)
        if band is None:
            for axes, number in zip(row, numbers, strict=True):
                axes.set_title(f"{clip.seconds[number]:.2f} s", fontsize=7, pad=2)
            continue
        colours = ScalarMappable(Normalize(*band.limits), band.colours)
        beyond = np.abs(band.values).max() > band.limits[1]
        extend = ("both" if band.signed else "max") if beyond else "neither"
        bar = figure.colorbar(
            colours, ax=list(row), fraction=0.05, pad=0.01, extend=extend
        )
        bar.set_label(band.unit, fontsize=7)
        bar.ax.tick_params(labelsize=6)
        bar.ax.yaxis.get_offset_text().set_fontsize(6)
    with renamed_when_complete(path) as partial:
        figure.savefig(partial, format="png")


def write_film(
    clip: TracedClip,
    band: Band,
    path: str | Path,
    mark: tuple[int, float, float] | None = None,
) -> None:
    """Write the frames of a clip with a map over them, in the video's own time.

    Args:
        clip (TracedClip): The clip.
        band (Band): The map.
        path (str | Path): The film to write, mp4.
        mark (tuple[int, float, float], optional): A place to mark in its frame.

    Raises:
        UserError: If no mp4 can be written.
    """
    height, width = clip.frames[0].shape[:2]
    shrink = _shrink(width, FILM_WIDTH)
    size = tuple(2 * round(shrink * length / 2) for length in (width, height))
    with renamed_when_complete(path) as partial:
        codec = cv2.VideoWriter_fourcc(*"mp4v")
        # Players take no film of less than a frame a second.
        writer = cv2.VideoWriter(
            utf8_name(partial), codec, max(clip.frame_rate, 1.0), size
        )
        if not writer.isOpened():
            raise UserError(f"OpenCV cannot write mp4 files here ({path}).")
        for number in range(len(clip.frames)):
            picture = cv2.resize(_blend(clip, band, number, FILM_WIDTH), size)
            picture = np.ascontiguousarray(picture[..., ::-1])
            if mark and mark[0] == number:
                centre = tuple(round(shrink * value) for value in mark[1:])
                radius = max(4, size[0] // 40)
                for colour, line in (((0, 0, 0), 4), ((0, 212, 255), 2)):
                    cv2.circle(picture, centre, radius, colour, line, cv2.LINE_AA)
            writer.write(picture)
        writer.release()


def choose_frames(count: int, wanted: Sequence[int]) -> list[int]:
    """Return which frames a film strip shows: evenly spaced, and some wanted ones.

    Args:
        count (int): How many there are.
        wanted (Sequence[int]): Those that must be among them, fewer than are shown.

    Returns:
        list[int]: Their numbers, in order.
    """
    numbers = np.linspace(0, count - 1, min(count, MOST_FRAMES)).round().astype(int)
    for frame in wanted:
        if frame not in numbers:
            free = [n for n in range(len(numbers)) if numbers[n] not in wanted]
            numbers[min(free, key=lambda n: abs(numbers[n] - frame))] = frame
    return sorted(numbers.tolist())


def _shrink(width: int, most: int) -> float:
    return min(1.0, most / width)


def _draw_mark(axes, mark: tuple[int, float, float], shrink: float) -> None:
    centre = (mark[1] * shrink, mark[2] * shrink)
    for colour, line in (("black", 3), (MARK, 1.6)):
        axes.plot(*centre, "o", ms=9, mfc="none", mec=colour, mew=line)
    for spine in axes.spines.values():
        spine.set(color=MARK, linewidth=2.5)


def _blend(clip: TracedClip, band: Band | None, number: int, most: int) -> np.ndarray:
    """Return a frame with a map over it, RGB bytes, not wider than ``most``."""
    frame = clip.frames[number]
    height, width = frame.shape[:2]
    if band is not None:
        values = over_frame(clip, band.values, number)
        painted = band.paint(values)
        alpha, grey = painted[..., 3:], frame.mean(axis=2, keepdims=True)
        # The map has the colours; where the model does not look the frame is pale.
        seen = np.isfinite(values)[..., None]
        frame = np.where(seen, 0.4 * frame + 0.6 * grey, 0.4 * grey + 130)
        frame = (1 - alpha) * frame + alpha * 255 * painted[..., :3]
    shrink = _shrink(width, most)
    size = (max(1, round(shrink * width)), max(1, round(shrink * height)))
    picture = np.clip(frame, 0, 255).astype(np.uint8)
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
