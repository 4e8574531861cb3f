"""Windows of a long video, each as the test pipeline sees a video of its own.

A window is sampled by the config's own steps (``SampleFrames``, ``UniformSample``, ...)
as if its frames were a whole video, so that its scores are those that ``test.py`` gives
to these frames cut out. Frames overlapping windows have in common are decoded and
resized once; what is held is one window.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from mmengine.dataset import Compose

from polynl_mm.recognizers.frames_in_order import Frame, FramesInOrder
from polynl_mm.user_errors import UserError

# Times are sums of rounded timestamps.
TOLERANCE = 1e-6


@dataclass
class Window:
    """Frames of a video that are looked at together.

    Attributes:
        start (float): In seconds after the video's first frame.
        end (float): Where it ends, at most where the video does.
        frames (list[Frame]): Those shown first within it, at least one: where no frame
            begins in it, the one that is still on display.
    """

    start: float
    end: float
    frames: list[Frame]


def windows_of(frames: FramesInOrder, window: float, step: float) -> Iterator[Window]:
    """Yield the windows of a video while it is decoded.

    They start at 0, ``step``, 2 ``step``, ... seconds. The first one that reaches the
    end of the video is the last, and ends there.

    Args:
        frames (FramesInOrder): The video.
        window (float): The length of each in seconds.
        step (float): From one start to the next in seconds.

    Yields:
        Window: In the order of time.

    Raises:
        UserError: If a length is not positive.
    """
    for name, value in (("window", window), ("step", step)):
        if not (math.isfinite(value) and value > 0):
            raise UserError(f"--{name} is a number of seconds above 0, not {value}.")
    number, held, shown = 0, deque(), None
    for frame in frames:
        while frame.time >= number * step + window - TOLERANCE:
            start = number * step
            shown = _drop_before(start, held, shown)
            yield Window(start, start + window, _first(held, start + window) or [shown])
            number += 1
        if frame.time < number * step - TOLERANCE:
            shown = frame  # between two windows, as all before it
            held.clear()
        else:
            held.append(frame)
    end, last = frames.end, -math.inf
    while number * step < end - TOLERANCE and last < end - TOLERANCE:
        start, last = number * step, number * step + window
        shown = _drop_before(start, held, shown)
        yield Window(start, min(last, end), _first(held, last) or [shown])
        number += 1


def _drop_before(start: float, held: deque, shown: Frame | None) -> Frame | None:
    """Forget what comes before a window, and return the last of it."""
    while held and held[0].time < start - TOLERANCE:
        shown = held.popleft()
    return shown


def _first(held: deque, end: float) -> list[Frame]:
    return [frame for frame in held if frame.time < end - TOLERANCE]


class WindowSampler:
    """Makes samples of windows with a test pipeline.

    Args:
        steps (tuple): The pipeline in four: see
            :func:`polynl_mm.recognizers.video_reading.split_pipeline`.
    """

    def __init__(self, steps: tuple):
        reader, sampling, _, rest = steps
        self.reader = str(reader["type"])
        self.sampling = sampling
        self._sample = Compose(sampling)
        first = str(rest[0].get("type")).rpartition(".")[2] if rest else ""
        # A Resize that stands first is done to each frame when it is decoded: what is
        # held is small, and what windows share is resized once.
        early = first == "Resize" and not rest[0].get("lazy")
        self._resize: Callable | None = Compose([rest[0]]) if early else None
        self._rest = Compose(rest[1:] if early else rest)
        self._state: dict = {}

    def shrunk(self, frames: FramesInOrder) -> "_Shrunk":
        """Return the frames as they are to be held.

        Args:
            frames (FramesInOrder): The video.

        Returns:
            An iterable of frames that knows what ``frames`` does.
        """
        return _Shrunk(frames, self.shrunk_image)

    def sample(self, window: Window) -> dict:
        """Return what the pipeline makes of a window.

        Args:
            window (Window): With frames from :meth:`shrunk`.

        Returns:
            dict: The packed sample.
        """
        images = [frame.image for frame in window.frames]
        fps = len(images) / max(window.end - window.start, TOLERANCE)
        start = {"filename": "", "label": -1, "start_index": 0, "modality": "RGB"}
        start |= {"total_frames": len(images), "avg_fps": fps}
        return self.packed(self._sample(start), images)

    def packed(self, sampled: dict, images: list[np.ndarray]) -> dict:
        """Return what the steps after sampling and decoding make of frames.

        Args:
            sampled (dict): With ``frame_inds`` into ``images``.
            images (list[np.ndarray]): From :meth:`shrunk`.

        Returns:
            dict: The packed sample.
        """
        chosen = np.asarray(sampled["frame_inds"]).reshape(-1)
        # Later steps may work in place, and windows overlap.
        images = [images[index].copy() for index in chosen.clip(0, len(images) - 1)]
        sampled = {**sampled, **self._state, "imgs": images}
        if self._resize is None:
            sampled["original_shape"] = sampled["img_shape"] = images[0].shape[:2]
        return self._rest(sampled)

    def shrunk_image(self, image: np.ndarray) -> np.ndarray:
        """Return a frame as it is to be held.

        Args:
            image (np.ndarray): RGB bytes, (H, W, 3).

        Returns:
            np.ndarray: Resized where the pipeline begins with that.
        """
        if self._resize is None:
            return image
        shape = image.shape[:2]
        results = {"imgs": [image], "original_shape": shape, "img_shape": shape}
        results = self._resize({**results, "modality": "RGB"})
        image = results.pop("imgs")[0]
        self._state = results
        return image


class _Shrunk:
    """The frames of a video, made small as soon as they are decoded."""

    def __init__(self, frames: FramesInOrder, shrink: Callable):
        self._frames, self._shrink = frames, shrink

    @property
    def end(self) -> float:
        return self._frames.end

    def __iter__(self) -> Iterator[Frame]:
        for frame in self._frames:
            frame.image = self._shrink(frame.image)
            yield frame
