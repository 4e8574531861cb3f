"""Reading single videos, whatever their state: in order, without seeking."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np

from polynl_mm.recognizers.evaluation_pipelines import find_test_pipeline
from polynl_mm.user_errors import UserError, first_line

READERS = ("DecordInit", "OpenCVInit", "PyAVInit")
DECODERS = ("DecordDecode", "OpenCVDecode", "PyAVDecode")
# The decoders report every damaged packet; our note says it once. -8 is libav's QUIET.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


class UnreadableVideoError(UserError):
    """No frame of a video can be read."""


def count_readable_frames(video: str) -> tuple[int, int]:
    """Count the frames of a video that can be decoded in order.

    Args:
        video (str): The file.

    Returns:
        tuple[int, int]: How many were read, and how many the file declares.
    """
    with capturing(video) as capture:
        declared = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        readable = 0
        while capture.grab():
            readable += 1
    return readable, max(declared, readable)


def read_frames(video: str, indices: np.ndarray) -> list[np.ndarray]:
    """Read chosen frames of a video by decoding it in order.

    Args:
        video (str): The file.
        indices (np.ndarray): Frame numbers from 0, in any order, repeats allowed.

    Returns:
        list[np.ndarray]: RGB frames of shape (H, W, 3), in the order of ``indices``;
        the nearest readable one of those asked for in place of an unreadable one.

    Raises:
        UnreadableVideoError: If none of the frames can be read.
    """
    wanted = {int(index) for index in indices}
    kept = {}
    with capturing(video) as capture:
        for index in range(max(wanted) + 1):
            if not capture.grab():
                break
            if index in wanted:
                read, frame = capture.retrieve()
                if read:
                    kept[index] = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    if not kept:
        raise UnreadableVideoError(f"{video}: none of the frames needed can be read.")
    return [kept[min(kept, key=lambda k: abs(k - int(i)))] for i in indices]


def split_pipeline(cfg, config_name: str) -> tuple:
    """Part the test pipeline of a config at the steps that read a video.

    Args:
        cfg (mmengine.Config): A config.
        config_name (str): What to call it in errors.

    Returns:
        tuple: The reader, the steps between (a list), the decoder, and the steps after
        it (a list), all as configs.

    Raises:
        UserError: If the pipeline does not read videos.
    """
    pipeline = find_test_pipeline(cfg) or []
    kinds = [str(step.get("type")).split(".")[-1] for step in pipeline]
    readers = [i for i, kind in enumerate(kinds) if kind in READERS]
    decoders = [i for i, kind in enumerate(kinds) if kind in DECODERS]
    if not readers or not decoders:
        raise UserError(
            f"The test pipeline of {config_name} does not read videos; it needs one of "
            f"{', '.join(READERS)} and one of {', '.join(DECODERS)}."
        )
    first, second = readers[0], decoders[0]
    between = pipeline[first + 1 : second]
    return pipeline[first], between, pipeline[second], pipeline[second + 1 :]


def silence_decord() -> None:
    """Keep decord's own remarks about damaged packets from the terminal."""
    with suppress(ImportError):  # another reader may be in use
        import decord

        decord.logging.set_level(decord.logging.QUIET)


def check_video(video: str) -> None:
    """Refuse what is no file to read.

    Args:
        video (str): The path.

    Raises:
        UserError: If it is a folder, absent or empty.
    """
    path = Path(video)
    if path.is_dir():
        raise UserError(f"{video} is a folder; give the video files in it.")
    if not path.is_file():
        raise UserError(f"The video {video} does not exist.")
    if path.stat().st_size == 0:
        raise UnreadableVideoError(f"{video}: no frame can be read; the file is empty.")


@contextmanager
def capturing(video: str) -> Iterator[cv2.VideoCapture]:
    """Open a video with OpenCV, and say its errors in one sentence.

    Args:
        video (str): The file.

    Yields:
        cv2.VideoCapture: The open (or not opened) video, released at the end.

    Raises:
        UnreadableVideoError: If OpenCV raises an error meanwhile.
    """
    capture = cv2.VideoCapture(str(video))
    try:
        yield capture
    except cv2.error as error:
        raise UnreadableVideoError(
            f"{video}: OpenCV cannot decode it; it is damaged or not a video "
            f"({first_line(error)})."
        ) from error
    finally:
        capture.release()
