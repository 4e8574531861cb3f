"""The clips that a model gets wrong with the most confidence, as strips of frames."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from polynl_mm.analysis.accuracy.dumped_results import DumpedResults
from polynl_mm.recognizers.video_reading import count_readable_frames, read_frames
from polynl_mm.user_errors import UserError

FRAMES, HEIGHT = 6, 96
PICTURES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class ConfusedClip:
    """A clip that was taken for something else.

    Attributes:
        path (str): Its video or folder of frames.
        truth (str): Its class.
        taken_for (str): The class of the highest score.
        score (float): That score.
        true_score (float): The score of its own class.
        strip (str): Some of its frames as the address of a picture, ``data:...``;
            empty where they cannot be read.
    """

    path: str
    truth: str
    taken_for: str
    score: float
    true_score: float
    strip: str


def find_confused(
    results: DumpedResults, names: Sequence[str], count: int
) -> list[ConfusedClip]:
    """Return the clips that a model is most sure about, and wrong.

    Args:
        results (DumpedResults): Its predictions.
        names (Sequence[str]): The names of the classes.
        count (int): How many at most.

    Returns:
        list[ConfusedClip]: By how much the wrong score exceeds the right one.
    """
    rows = np.arange(len(results.labels))
    best, right = results.predictions, results.labels
    lead = results.scores[rows, best] - results.scores[rows, right]
    order = [row for row in np.argsort(-lead, kind="stable") if best[row] != right[row]]
    return [
        ConfusedClip(
            path=results.names[row] if results.names else f"sample {row}",
            truth=names[right[row]],
            taken_for=names[best[row]],
            score=float(results.scores[row, best[row]]),
            true_score=float(results.scores[row, right[row]]),
            strip=strip_of(results.names[row]) if results.names else "",
        )
        for row in order[:count]
    ]


def strip_of(source: str) -> str:
    """Return some frames of a video side by side.

    Args:
        source (str): A video, or a folder of frames.

    Returns:
        str: The address of a picture, which holds the picture itself; empty if there
        is no frame to be read.
    """
    try:
        frames = _read(Path(source))
    except (UserError, OSError, ValueError, cv2.error):
        return ""
    if not frames:
        return ""
    scaled = [
        np.asarray(Image.fromarray(frame).resize((_width(frame), HEIGHT)))
        for frame in frames
    ]
    memory = io.BytesIO()
    Image.fromarray(np.concatenate(scaled, axis=1)).save(memory, "JPEG", quality=80)
    return picture_address(memory.getvalue(), "jpeg")


def picture_address(content: bytes, kind: str) -> str:
    """Return an address that holds a picture itself.

    Args:
        content (bytes): The picture's file.
        kind (str): ``'png'`` or ``'jpeg'``.
    """
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _width(frame: np.ndarray) -> int:
    return max(1, round(HEIGHT * frame.shape[1] / frame.shape[0]))


def _read(source: Path) -> list[np.ndarray]:
    """Return frames of a video or a folder, (H, W, 3), RGB."""
    if source.is_dir():
        files = sorted(f for f in source.iterdir() if f.suffix.lower() in PICTURES)
        chosen = _spread(len(files))
        return [np.asarray(Image.open(files[i]).convert("RGB")) for i in chosen]
    total = count_readable_frames(str(source))[0]
    return list(read_frames(str(source), np.asarray(_spread(total))))


def _spread(count: int) -> list[int]:
    chosen = np.linspace(0, count - 1, min(count, FRAMES)).round().astype(int)
    return chosen.tolist()
