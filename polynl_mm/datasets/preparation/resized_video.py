"""Makes one video small enough to decode fast: the same frames, in H.264."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path

import cv2
import numpy as np

from polynl_mm.atomic_files import renamed_when_complete
from polynl_mm.datasets.decoding.decord_errors import UNFIT_WIDTHS
from polynl_mm.datasets.preparation.every_frame import (
    DamagedVideoError,
    DecordFrames,
    PyAVFrames,
    UnfitForDecordError,
    VideoStream,
    read_streams,
    stream_of,
)
from polynl_mm.user_errors import UserError

SUFFIX = ".mp4"
# What readers take untagged videos for, so that those that ignore tags are right, too.
BT601, LIMITED_RANGE = 6, 1  # as in H.264's and libavutil's tables


@dataclass(frozen=True)
class ResizeParameters:
    """Everything that decides what the resized videos look like.

    Args:
        short_side (int): Height or width in pixels, whichever is smaller: even, from
            32 on.
        crf (int): Quality of the H.264 encoder, from 0 (lossless) to 51 (worst).
        keyframe_interval (int): At most so many frames from one key frame to the
            next: the fewer, the faster are jumps to a clip, and the larger the file.
        upscale (bool): Whether smaller videos are made larger.
        keep_damaged (bool): Whether of a damaged video the frames that can be decoded
            are kept.

    Raises:
        UserError: If a value is not in its range.
    """

    short_side: int = 256
    crf: int = 20
    keyframe_interval: int = 30
    upscale: bool = False
    keep_damaged: bool = False

    def __post_init__(self):
        if self.short_side < 32 or self.short_side % 2:
            raise UserError(
                "--short-side must be an even number from 32 on, such as 256 or 320, "
                f"not {self.short_side}."
            )
        if not 0 <= self.crf <= 51:
            raise UserError(f"--crf must be from 0 to 51, not {self.crf}.")
        if self.keyframe_interval < 1:
            raise UserError(
                f"--keyframe-interval must be 1 or more, not {self.keyframe_interval}."
            )

    def keeps(self, width: int, height: int) -> bool:
        """Return whether a video of this size, in pixels, is small enough already."""
        short_side = min(width, height)
        if self.upscale:
            return short_side == self.short_side
        return short_side <= self.short_side


def target_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Return the size of a resized video: even numbers of nearly the same ratio.

    Args:
        width (int): Of the source, in pixels.
        height (int): Of the source, in pixels.
        short_side (int): Of the result, in pixels, even.

    Returns:
        tuple[int, int]: Width and height of the result. The width is one that decord
        can read: 48, for one, becomes 50.
    """
    long_side = 2 * round(max(width, height) * short_side / min(width, height) / 2)
    size = (short_side, long_side) if width < height else (long_side, short_side)
    width, height = size
    while width in UNFIT_WIDTHS:
        width += 2
    return width, height


def resize_video(source: Path, target: Path, parameters: ResizeParameters) -> str:
    """Write a video with a short side of the wanted length, whole or not at all.

    All frames are kept, as decord reads them: upright, in their order, at the average
    frame rate of the source. Sound is dropped. An ``.mp4`` file of nothing but H.264
    that is small enough already is copied as it is, once it has been decoded to its
    end; all other small videos are encoded at their own size.

    Args:
        source (Path): The video.
        target (Path): What to write, ending in ``.mp4``.
        parameters (ResizeParameters): The size and quality.

    Returns:
        str: ``"resized"``, ``"encoded"`` (at its own size) or ``"copied"``.

    Raises:
        DamagedVideoError: If the source cannot be read to its end; says why.
        OSError: If the target cannot be written.
    """
    streams = read_streams(source)
    try:
        frames = DecordFrames(source, streams)
        if _is_finished(source, streams, parameters):
            for _ in frames:
                pass
            with renamed_when_complete(target) as unfinished:
                shutil.copyfile(source, unfinished)
            return "copied"
        return _encode(frames, streams, target, parameters)
    except UnfitForDecordError:
        pass  # such as AV1, or a narrow video
    except DamagedVideoError:
        if not parameters.keep_damaged:
            raise
    frames = PyAVFrames(source, parameters.keep_damaged)
    return _encode(frames, streams, target, parameters)


def _is_finished(
    source: Path, streams: list[VideoStream], parameters: ResizeParameters
) -> bool:
    """Return whether a video is already what a resized one would be."""
    with open(source, "rb") as file:
        is_mp4 = file.read(8)[4:] == b"ftyp" and source.suffix.lower() == SUFFIX
    return (
        is_mp4
        and [stream.codec for stream in streams] == ["h264"]
        and parameters.keeps(*streams[0].size)
    )


def _encode(
    frames: DecordFrames | PyAVFrames,
    streams: list[VideoStream],
    target: Path,
    parameters: ResizeParameters,
) -> str:
    left = iter(frames)
    first = next(left, None)
    if first is None:
        raise DamagedVideoError("has no frames")
    height, width = first.shape[:2]
    kept = parameters.keeps(width, height)
    short_side = max(2, min(width, height) // 2 * 2) if kept else parameters.short_side
    stream = stream_of(first, streams)
    ratio = stream.pixel_ratio if stream else None
    if ratio and stream.size != (width, height):
        ratio = 1 / ratio  # the frames are turned
    size = target_size(width, height, short_side)
    with renamed_when_complete(target) as unfinished:
        write_h264(
            chain([first], left), unfinished, size, frames.rate, ratio, parameters
        )
    return "encoded" if kept else "resized"


def write_h264(
    frames: Iterable[np.ndarray],
    target: Path,
    size: tuple[int, int],
    rate: Fraction,
    pixel_ratio: Fraction | None,
    parameters: ResizeParameters,
) -> None:
    """Write frames as H.264 into an mp4 file.

    Args:
        frames (Iterable[np.ndarray]): Each (H, W, 3), RGB.
        target (Path): The file.
        size (tuple[int, int]): Width and height to resize them to, in pixels, even.
        rate (Fraction): Frames a second.
        pixel_ratio (Fraction | None): Width of a pixel by its height.
        parameters (ResizeParameters): The quality.

    Raises:
        OSError: If the file cannot be written.
    """
    import av

    width, height = size
    try:
        with av.open(str(target), "w", options={"movflags": "+faststart"}) as container:
            stream = container.add_stream("libx264", rate=rate)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.options = {"crf": str(parameters.crf), "preset": "medium"}
            context = stream.codec_context
            context.gop_size = parameters.keyframe_interval
            context.thread_count = 1  # the workers are parallel
            context.colorspace, context.color_range = BT601, LIMITED_RANGE
            if pixel_ratio:
                context.sample_aspect_ratio = pixel_ratio
            for index, picture in enumerate(frames):
                shrinks = picture.shape[0] * picture.shape[1] > width * height
                how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
                picture = cv2.resize(picture, size, interpolation=how)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame = frame.reformat(
                    format="yuv420p",
                    interpolation="AREA",  # of the halved chroma
                    dst_colorspace="ITU601",
                    dst_color_range="MPEG",
                )
                frame.pts, frame.time_base = index, 1 / rate
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    except av.FFmpegError as error:  # PyAVFrames catches those of the source
        raise OSError(error.errno, error.strerror) from error
