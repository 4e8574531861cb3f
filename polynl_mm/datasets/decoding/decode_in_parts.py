"""Decoding that never holds many full-size frames: decode some, shrink them, go on.

Ten clips of 32 frames at 1080p are 2 GB of raw frames, and decord and numpy hold them
twice. The frames that a pipeline goes on with are a twentieth of that.
"""

from collections.abc import Callable

import numpy as np
from mmengine.registry import TRANSFORMS

FRAMES = 32
DECODERS = ("DecordDecode", "OpenCVDecode", "PyAVDecode", "RawFrameDecode")


@TRANSFORMS.register_module()
class DecodeInParts:
    """A decoding step and the Resize after it, a few frames at a time.

    Each frame is decoded and resized once, however many clips it is in, in the order
    of the video. The results equal those of the two steps one after the other::

        dict(type='DecodeInParts',
             decode=dict(type='DecordDecode'),
             resize=dict(type='Resize', scale=(-1, 256)))

    Args:
        decode (dict | Callable): A decoding step of MMAction2.
        resize (dict | Callable): A ``Resize`` with ``lazy=False``.
        frames (int): How many full-size frames are held at once.
    """

    def __init__(
        self, decode: dict | Callable, resize: dict | Callable, frames: int = FRAMES
    ):
        if not isinstance(frames, int) or frames < 1:
            raise ValueError(f"frames is a whole number from 1, not {frames!r}.")
        self.decode, self.resize = (
            TRANSFORMS.build(step) if isinstance(step, dict) else step
            for step in (decode, resize)
        )
        self.frames = frames

    def __call__(self, results: dict) -> dict:
        """Decode and resize the frames of a sample.

        Args:
            results (dict): With ``frame_inds``, as the step ``decode`` needs it.

        Returns:
            dict: With ``imgs``, as after the two steps.
        """
        wanted = np.asarray(results["frame_inds"]).reshape(-1)
        kept, order = np.unique(wanted, return_inverse=True)
        images, done = [], results
        for start in range(0, len(kept), self.frames):
            part = {**results, "frame_inds": kept[start : start + self.frames]}
            done = self.resize(self.decode(part))
            images.extend(done["imgs"])
        first = set()
        done["imgs"] = []
        for index in order.reshape(-1):
            # A later step may work in place, so that no two clips share a frame.
            image = images[index]
            done["imgs"].append(image.copy() if index in first else image)
            first.add(index)
        done["frame_inds"] = wanted
        results.pop("video_reader", None)
        return done

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(decode={self.decode}, resize={self.resize}, "
            f"frames={self.frames})"
        )


def decode_in_parts(pipeline: list[dict], frames: int = FRAMES) -> list[dict]:
    """Put a decoder and the Resize after it together, where a pipeline has them.

    Args:
        pipeline (list[dict]): The config of a pipeline.
        frames (int): As for :class:`DecodeInParts`.

    Returns:
        list[dict]: The config of an equal pipeline that needs less memory.
    """
    bounded, steps = [], list(pipeline)
    while steps:
        step = steps.pop(0)
        following = steps[0] if steps else {}
        kind = str(step.get("type")).rpartition(".")[2]
        if (
            kind in DECODERS
            and str(following.get("type")).rpartition(".")[2] == "Resize"
            and not following.get("lazy")
        ):
            step = dict(
                type="DecodeInParts",
                decode=step,
                resize=steps.pop(0),
                frames=frames,
            )
        bounded.append(step)
    return bounded
