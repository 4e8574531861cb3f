"""All frames of a video, upright and in RGB, as training sees them.

Training reads by decord, which knows of rotation and colour tags, chooses one of
several video streams and counts frames in its own way: what is made of a video for
training begins with decord's frames. What decord cannot read, PyAV does.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from polynl_mm.datasets.preparation.video_files import (
    counts_frames,
    find_cut,
    find_loss,
)
from polynl_mm.user_errors import first_line

BATCH = 16  # frames; single ones come out skewed where batches would raise an error
DEFAULT_RATE = Fraction(25)  # of files that do not say theirs
# The denominator of 30000/1001 frames a second, the largest one that is in use.
LARGEST_DENOMINATOR = 1001


class DamagedVideoError(Exception):
    """A video cannot be read, or not to its end."""


class UnfitForDecordError(Exception):
    """Decord cannot read a video, which says nothing of the video."""


@dataclass(frozen=True)
class VideoStream:
    """What a container says of one of its video streams.

    Attributes:
        codec (str): Its codec, such as ``"h264"``.
        size (tuple[int, int]): Width and height as stored, before any rotation.
        declared (int): How many frames the container counts; 0 if it does not.
        pixel_ratio (Fraction | None): Width of a pixel by its height.
    """

    codec: str
    size: tuple[int, int]
    declared: int
    pixel_ratio: Fraction | None


def read_streams(path: Path) -> list[VideoStream]:
    """Return what a container says of its video streams.

    Args:
        path (Path): The file.

    Returns:
        list[VideoStream]: At least one.

    Raises:
        DamagedVideoError: If the file is no video.
    """
    import av

    if not path.stat().st_size:
        raise DamagedVideoError("is an empty file")
    counted = counts_frames(path)
    try:
        with av.open(str(path)) as container:
            streams = [
                VideoStream(
                    stream.codec_context.codec.canonical_name,
                    (stream.codec_context.width, stream.codec_context.height),
                    stream.frames if counted else 0,
                    stream.codec_context.sample_aspect_ratio,
                )
                for stream in container.streams.video
            ]
    except av.FFmpegError as error:
        reason = find_cut(path) or "is damaged or not a video"
        raise DamagedVideoError(reason) from error
    if not streams:
        raise DamagedVideoError("has no video stream")
    return streams


def stream_of(frame: np.ndarray, streams: list[VideoStream]) -> VideoStream | None:
    """Return the stream that a frame is of, by its size; it may have been turned.

    Args:
        frame (np.ndarray): (H, W, 3).
        streams (list[VideoStream]): Those of its file.
    """
    sides = sorted(frame.shape[:2])
    return next((x for x in streams if sorted(x.size) == sides), None)


class DecordFrames:
    """The frames that decord reads: an iterable of arrays (H, W, 3) in RGB.

    Attributes:
        rate (Fraction): How many there are in a second.

    Args:
        path (Path): The file.
        streams (list[VideoStream]): Its video streams.

    Raises:
        UnfitForDecordError: Here or while iterating, if decord cannot read it.
        DamagedVideoError: At the end, if the file has lost frames.
    """

    def __init__(self, path: Path, streams: list[VideoStream]):
        import decord

        decord.logging.set_level(decord.logging.QUIET)
        self._path, self._streams = path, streams
        try:
            self._reader = decord.VideoReader(str(path), num_threads=1)
            self.rate = _usual_rate(self._reader.get_avg_fps())
        except Exception as error:
            raise UnfitForDecordError(first_line(error)) from error

    def __iter__(self) -> Iterator[np.ndarray]:
        length, stream = len(self._reader), None
        for start in range(0, length, BATCH):
            batch = list(range(start, min(start + BATCH, length)))
            try:
                frames = self._reader.get_batch(batch).asnumpy()
            except Exception as error:
                raise UnfitForDecordError(first_line(error)) from error
            stream = stream_of(frames[0], self._streams)
            yield from frames
        loss = find_loss(self._path, length, stream.declared if stream else 0)
        if loss:
            raise DamagedVideoError(loss)


class PyAVFrames:
    """The frames that PyAV decodes: an iterable of arrays (H, W, 3) in RGB.

    Attributes:
        rate (Fraction): How many there are in a second.

    Args:
        path (Path): The file, with a video stream.
        keep_damaged (bool): Whether to take of a damaged video what can be decoded.

    Raises:
        DamagedVideoError: While iterating, if the file is damaged and not to be kept.
    """

    def __init__(self, path: Path, keep_damaged: bool):
        import av

        self._path, self._keep_damaged = path, keep_damaged
        with av.open(str(path)) as container:
            stream = container.streams.best("video") or container.streams.video[0]
            self.rate = _usual_rate(stream.average_rate or stream.guessed_rate)

    def __iter__(self) -> Iterator[np.ndarray]:
        import av

        frames, packets, failure = 0, 0, ""
        with av.open(str(self._path)) as container:
            stream = container.streams.best("video") or container.streams.video[0]
            stream.codec_context.thread_count = 1  # the workers are parallel
            declared = stream.frames if counts_frames(self._path) else 0
            demuxed = container.demux(stream)
            while True:
                try:
                    packet = next(demuxed, None)
                    if packet is None:
                        break
                    packets += packet.size > 0
                    for frame in packet.decode():
                        frames += 1
                        yield _upright(frame)
                except av.FFmpegError as error:
                    failure = failure or (
                        f"decoding fails after {frames} frames: {first_line(error)}"
                    )
                    if not self._keep_damaged:
                        break
        # A decoder leaves out frames that an edit list hides, but no packet of a whole
        # file is missing.
        failure = failure or find_loss(self._path, packets, declared)
        if failure and not (self._keep_damaged and frames):
            raise DamagedVideoError(failure)


def _upright(frame) -> np.ndarray:
    """Return a frame in RGB, turned as decord and OpenCV turn it."""
    quarters, rest = divmod(frame.rotation, 90)  # counter-clockwise
    picture = frame.to_ndarray(format="rgb24")
    return picture if rest else np.rot90(picture, quarters)


def _usual_rate(rate: float | Fraction | None) -> Fraction:
    """Return a frame rate as a fraction, which decord gives as a float."""
    if not rate or not 0 < rate < float("inf"):
        return DEFAULT_RATE
    return Fraction(rate).limit_denominator(LARGEST_DENOMINATOR) or DEFAULT_RATE
