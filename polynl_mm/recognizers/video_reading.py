"""Reading single videos, whatever their state: in order, without seeking."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np
from mmengine.dataset import Compose

from polynl_mm.file_names import utf8_name
from polynl_mm.user_errors import UserError, first_line

READERS = ("DecordInit", "OpenCVInit", "PyAVInit")
DECODERS = ("DecordDecode", "OpenCVDecode", "PyAVDecode")
# The decoders report every damaged packet; our note says it once. -8 is libav's QUIET.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


class UnreadableVideoError(UserError):
    """No frame of a video can be read."""


def decode(video: str, reader: dict, sampler: list, decoder: dict) -> tuple[dict, str]:
    """Read the frames of a video that a pipeline samples.

    Args:
        video (str): The file.
        reader (dict): The step that opens it.
        sampler (list): The steps between.
        decoder (dict): The step that decodes.

    Returns:
        tuple[dict, str]: The sample, with ``imgs`` and ``frame_inds``, and what is to
        know about the file, mostly nothing.

    Raises:
        UserError: If the file does not exist or no frame of it can be read.
    """
    check_video(video)
    silence_decord()
    with capturing(video) as capture:
        if not capture.isOpened():
            # decord would print the content of a file that is no video.
            raise UnreadableVideoError(
                f"{video}: no frame can be read; it is damaged or not a video."
            )
    start = {"filename": str(video), "label": -1, "start_index": 0}
    start["modality"] = "RGB"
    try:
        return Compose([reader, *sampler, decoder])(dict(start)), ""
    except UserError:
        raise
    except Exception as error:
        # The readers raise errors of many kinds on damaged files. Reading the
        # frames in order, without seeking, gets at what there is.
        reason = first_line(error)
    readable, declared = count_readable_frames(video)
    if readable == 0:
        raise UnreadableVideoError(
            f"{video}: no frame can be read; it is damaged or not a video ({reason})."
        )
    sample = Compose(sampler)({**start, "total_frames": readable})
    frames = read_frames(video, np.asarray(sample["frame_inds"]).reshape(-1))
    sample["imgs"] = frames
    sample["original_shape"] = sample["img_shape"] = frames[0].shape[:2]
    note = f"{readable} of {declared} frames can be read; these were used"
    if readable >= declared:
        note = ""  # the reader's quirk, not the file's
    return sample, note


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


def split_pipeline(pipeline: list[dict] | None, config_name: str) -> tuple:
    """Split a pipeline where it reads a video's frames.

    Args:
        pipeline (list[dict] | None): Its steps.
        config_name (str): The config, for the sentence.

    Returns:
        tuple: The step that opens the file, the list of those that sample, the step
        that decodes, and the list of the rest.

    Raises:
        UserError: If it does not read videos.
    """
    pipeline = pipeline or []
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
        UserError: If it is a folder, absent or empty, or its name is not UTF-8.
    """
    path = Path(video)
    if path.is_dir():
        raise UserError(f"{video} is a folder; give the video files in it.")
    if not path.is_file():
        raise UserError(f"The video {video} does not exist.")
    if path.stat().st_size == 0:
        raise UnreadableVideoError(f"{video}: no frame can be read; the file is empty.")
    utf8_name(video)


@contextmanager
def capturing(video: str) -> Iterator[cv2.VideoCapture]:
    """Open a video with OpenCV, and say its errors in one sentence.

    Args:
        video (str): The file.

    Yields:
        cv2.VideoCapture: The open (or not opened) video, released at the end.

    Raises:
        UnreadableVideoError: If OpenCV raises an error meanwhile.
        UserError: If OpenCV cannot take the file's name.
    """
    capture = cv2.VideoCapture(utf8_name(video))
    try:
        yield capture
    except cv2.error as error:
        raise UnreadableVideoError(
            f"{video}: OpenCV cannot decode it; it is damaged or not a video "
            f"({first_line(error)})."
        ) from error
    finally:
        capture.release()
