"""Copies of videos with predictions drawn on their frames."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from polynl_mm.atomic_files import renamed_when_complete
from polynl_mm.file_names import utf8_name
from polynl_mm.recognizers.frames_in_order import FramesInOrder
from polynl_mm.recognizers.video_reading import capturing
from polynl_mm.user_errors import UserError

ROUND = ((-1, -1), (-1, 1), (1, -1), (1, 1))


def open_writer(path: Path, fps: float, size: tuple) -> cv2.VideoWriter:
    """Open an mp4 file for writing.

    Args:
        path (Path): The file.
        fps (float): Frames a second.
        size (tuple): Width and height in pixels.

    Returns:
        cv2.VideoWriter: To be released.

    Raises:
        UserError: If OpenCV cannot write mp4 files here, or not of this name.
    """
    codec = cv2.VideoWriter_fourcc(*"mp4v")
    writer = cv2.VideoWriter(utf8_name(path), codec, fps, size)
    if not writer.isOpened():
        raise UserError(
            f"OpenCV cannot write mp4 files here ({path.parent}); leave --out-dir out."
        )
    return writer


def draw_lines(frame: np.ndarray, lines: list[str]) -> np.ndarray:
    """Draw lines of text on a frame, in place, as large as the frame allows.

    Args:
        frame (np.ndarray): BGR, (H, W, 3), bytes.
        lines (list[str]): The text.

    Returns:
        np.ndarray: The frame.
    """
    height, width = frame.shape[:2]
    longest = max(len(line) for line in lines)
    # Hershey characters are about 18 pixels wide and 30 high at scale 1.
    scale = min(width / (18 * (longest + 2)), height / (32 * (len(lines) + 1)), 1.2)
    thickness = max(1, round(2 * scale))
    for number, line in enumerate(lines, start=1):
        where = (round(12 * scale), round(32 * scale * number))
        text = line.encode("ascii", "replace").decode()
        # Copies around it, not thicker strokes, which fonts space differently.
        for x, y in (*ROUND, (0, 0)):
            cv2.putText(
                frame,
                text,
                (where[0] + x * thickness, where[1] + y * thickness),
                cv2.FONT_HERSHEY_SIMPLEX,
                scale,
                (0, 0, 0) if x else (255, 255, 255),
                thickness,
                cv2.LINE_AA,
            )
    return frame


def write_annotated(
    video: str, lines_at: Callable[[float], list[str]], target: str | Path
) -> None:
    """Write a copy of a video with lines of text on it, which may change over time.

    The copy has a constant frame rate, the video's mean: where the video's own varies,
    its frames are repeated or left out, so that every one is shown at its time.

    Args:
        video (str): The file.
        lines_at (Callable[[float], list[str]]): What to draw at a time in seconds.
        target (str | Path): The mp4 file to write.

    Raises:
        UserError: If no frame can be read, or no mp4 can be written.
    """
    frames = FramesInOrder(video, "OpenCVInit")
    fps = frames.fps if frames.fps < 1000 else 25.0
    shown, written, writer = None, 0, None
    with renamed_when_complete(target) as partial:
        try:
            with tqdm(
                total=frames.count or None, desc="Annotating", unit="frame"
            ) as bar:
                for frame in frames:
                    bar.update()
                    image = cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR)
                    if writer is None:
                        writer = open_writer(partial, fps, image.shape[1::-1])
                    else:
                        # Half a tick early, so that rounding does not repeat frames.
                        while (written + 0.5) / fps < frame.time:
                            writer.write(shown)
                            written += 1
                    shown = draw_lines(image, lines_at(frame.time))
                while writer is not None and (written + 0.5) / fps < frames.end:
                    writer.write(shown)
                    written += 1
        finally:
            if writer is not None:
                writer.release()
        _check_whole(partial, Path(target))


def _check_whole(partial: Path, target: Path) -> None:
    """Look at what was written: OpenCV says nothing when the disk is full."""
    with capturing(str(partial)) as written:
        if not written.isOpened():
            raise UserError(f"{target} cannot be written whole; is the disk full?")
