"""The frames of a video in one sequential pass, each with its own time.

Nothing is held back and nothing is sought, so that a video of any length, and of a
variable frame rate, passes through a few frames' memory. The frames are those that the
config's own reader gives to ``test.py``.
"""

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import cv2
import numpy as np

from polynl_mm.recognizers.video_reading import (
    UnreadableVideoError,
    capturing,
    check_video,
    silence_decord,
)
from polynl_mm.user_errors import UserError

# What a container declares and what its frames cover differ by rounding, and by sound
# that goes on after the picture.
MISSING_SECONDS = 1.0
# So many first frames of two readers are compared.
COMPARED = 4
# The property of OpenCV that says when a stream begins, in frames; unknown before 4.11.
FIRST_FRAME = getattr(cv2, "CAP_PROP_PTS", -1)
# How Matroska (mkv, webm) and NUT begin. The duration they declare is the time stamp at
# which they end, also where their first one is not 0: a part cut out of another file.
DECLARE_THEIR_END = (b"\x1a\x45\xdf\xa3", b"nut/multimedia")


@dataclass
class Frame:
    """A frame of a video.

    Attributes:
        index (int): Its number, from 0.
        time (float): When it is shown, in seconds after the first frame.
        image (np.ndarray): RGB bytes, (H, W, 3).
    """

    index: int
    time: float
    image: np.ndarray


class FramesInOrder:
    """The frames of a video, decoded once, in order.

    Where the config's reader gives up on a damaged file, OpenCV, which passes over what
    it cannot decode, goes on from there.

    Args:
        video (str): The file.
        reader (str): The step that opens it: ``"DecordInit"``, ``"OpenCVInit"`` or
            ``"PyAVInit"``.
        every (int): Give only each frame whose number this divides.

    Attributes:
        count (int): How many frames the file declares; 0 if unknown.
        seconds (float): How long the file declares to be; 0 if unknown.
        read (int): How many frames were read, also of those that were not given.
        time (float): The time of the last one, in seconds.

    Raises:
        UnreadableVideoError: If the file cannot be opened.
        UserError: If it is absent or a folder.
    """

    def __init__(self, video: str, reader: str = "DecordInit", every: int = 1):
        check_video(video)
        self.video, self.every = str(video), every
        self._reader = reader.rpartition(".")[2]
        self.read, self.time, self._interval = 0, 0.0, 0.0
        self._start: float | None = None
        with capturing(self.video) as capture:
            if not capture.isOpened():
                raise UnreadableVideoError(
                    f"{video}: no frame can be read; it is damaged or not a video."
                )
            fps = capture.get(cv2.CAP_PROP_FPS)
            count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
            if _declares_its_end(self.video) and capture.grab():
                count -= capture.get(FIRST_FRAME)
        known = math.isfinite(fps) and math.isfinite(count) and fps > 0 and count > 0
        self.count = int(count) if known else 0
        self.seconds = count / fps if known else 0.0
        self.fps = fps if known else 25.0

    def __iter__(self) -> Iterator[Frame]:
        """Decode the video from its start; a second time, it is decoded again."""
        self.read, self.time, self._interval, self._start = 0, 0.0, 1 / self.fps, None
        sources = {"DecordInit": self._decord, "PyAVInit": self._pyav}
        source = sources.get(self._reader)
        if self._reader == "DecordInit" and self._opencv_gives_the_same():
            # decord decodes a thousand frames ahead, which is gigabytes.
            source = None
        if source is not None:
            with suppress(_GaveUpError):
                yield from self._timed(source())
                if self.read >= self.count or self.missing_seconds() == 0:
                    return
        yield from self._timed(self._opencv(self.read))
        if self.read == 0:
            raise UnreadableVideoError(
                f"{self.video}: no frame can be read; it is damaged or not a video."
            )

    @property
    def end(self) -> float:
        """When the last frame that was read ends, in seconds."""
        return self.time + self._interval if self.read else 0.0

    def missing_seconds(self) -> float:
        """Return how much of the declared length was not reached; 0 if it was."""
        missing = self.seconds - self.end
        return missing if missing > MISSING_SECONDS else 0.0

    def note(self) -> str:
        """Return a sentence about what is missing after a pass; mostly empty."""
        if not self.missing_seconds():
            return ""
        return (
            f"{self.video} declares {self.seconds:.1f} s but can be read up to "
            f"{self.end:.1f} s only: it is cut off or damaged there, and what comes "
            "before is kept."
        )

    def _timed(self, pairs: Iterator[tuple]) -> Iterator[Frame]:
        for time, image in pairs:
            if self._start is None:
                self._start = time
            time -= self._start
            index, self.read = self.read, self.read + 1
            if index:
                # A frame without a time of its own follows at the usual distance.
                if not math.isfinite(time) or time <= self.time:
                    time = self.time + self._interval
                self._interval = time - self.time
            self.time = time
            if index % self.every == 0:
                yield Frame(index, time, image() if callable(image) else image)

    def _opencv_gives_the_same(self) -> bool:
        """Return whether decord and OpenCV take the same stream, turn and colours."""
        try:
            reader = _open_decord(self.video)
            found = [reader.next().asnumpy() for _ in range(min(COMPARED, len(reader)))]
        except Exception:
            return True  # decord cannot read it
        same = zip(found, self._opencv(0), strict=False)
        return all(np.array_equal(image, other) for image, (_, other) in same)

    def _decord(self) -> Iterator[tuple]:
        try:
            reader = _open_decord(self.video)
            count = len(reader)
        except Exception as error:
            raise _GaveUpError from error
        for index in range(count):
            try:
                time = float(reader.get_frame_timestamp(index)[0])
                image = reader.next().asnumpy()
            except Exception as error:
                raise _GaveUpError from error
            if image.shape[2:] != (3,):
                raise _GaveUpError
            yield time, image

    def _pyav(self) -> Iterator[tuple]:
        try:
            import av
        except ImportError as error:
            raise UserError(
                "The config reads videos with PyAV, which is not installed; "
                "pip install av."
            ) from error
        try:
            with av.open(self.video) as container:
                for frame in container.decode(video=0):
                    time = math.nan if frame.time is None else float(frame.time)
                    yield time, frame.to_rgb().to_ndarray()
        except av.FFmpegError as error:
            raise _GaveUpError from error

    def _opencv(self, first: int) -> Iterator[tuple]:
        """Decode with OpenCV from a frame on, which is reached without seeking."""
        with capturing(self.video) as capture:
            index, image = 0, None
            while capture.grab():
                time = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                if index >= first:
                    read, frame = capture.retrieve()
                    if read:
                        image = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
                    if image is not None:  # else the last one stands for it
                        yield time + (self._start or 0.0), image
                index += 1


def _declares_its_end(video: str) -> bool:
    with open(video, "rb") as file:
        return file.read(16).startswith(DECLARE_THEIR_END)


def _open_decord(video: str):
    import decord

    silence_decord()
    return decord.VideoReader(video, num_threads=1)


class _GaveUpError(Exception):
    """The config's reader cannot go on."""
