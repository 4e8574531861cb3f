"""One view of a video as a model sees it, and where in the video its pixels are from.

What a pipeline does to places (resizing, cropping) is asked of the pipeline itself: it
is also given pictures whose values are their own coordinates.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from mmengine.dataset import Compose
from torch import Tensor

from polynl_mm.file_names import utf8_name
from polynl_mm.recognizers.video_reading import decode, split_pipeline
from polynl_mm.user_errors import UserError


@dataclass
class TracedClip:
    """The clip that a model sees.

    Attributes:
        video (str): The file.
        inputs (Tensor): What the model takes: (1, 3, T, H, W), or (T, 3, H, W) for a
            network of images.
        frames (list[np.ndarray]): The T frames of the video themselves, RGB.
        seconds (np.ndarray): The time of each in the video, (T,).
        columns (np.ndarray): The video's x of each column of the input, (W,).
        rows (np.ndarray): The video's y of each row of the input, (H,).
        note (str): What is to know about the file or the view; mostly empty.
    """

    video: str
    inputs: Tensor
    frames: list[np.ndarray]
    seconds: np.ndarray
    columns: np.ndarray
    rows: np.ndarray
    note: str = ""

    @property
    def size(self) -> tuple[int, int, int]:
        """The input's frames, rows and columns, (T, H, W)."""
        return len(self.frames), len(self.rows), len(self.columns)

    @property
    def frame_rate(self) -> float:
        """How many of these frames a second has in the video's own time."""
        steps = np.diff(self.seconds)
        steps = steps[steps > 0]
        return float(1 / steps.mean()) if len(steps) else 1.0

    def find(self, x: float, y: float, seconds: float) -> tuple[int, int, int]:
        """Return the frame, row and column of the input nearest to a place.

        Args:
            x (float): Pixels from the video's left edge.
            y (float): Pixels from its upper edge.
            seconds (float): The time in the video.

        Returns:
            tuple[int, int, int]: Frame, row and column, each from 0.

        Raises:
            UserError: If the model does not see that place.
        """
        nearest = []
        axes = {
            "t": (seconds, self.seconds, "{:.2f} to {:.2f} s"),
            "y": (y, self.rows, "rows {:.0f} to {:.0f}"),
            "x": (x, self.columns, "columns {:.0f} to {:.0f}"),
        }
        for name, (wanted, places, words) in axes.items():
            step = np.median(np.abs(np.diff(places))) if len(places) > 1 else np.inf
            distance = np.abs(places - wanted)
            if not distance.min() <= max(step, 1e-6):
                seen = words.format(places.min(), places.max())
                raise UserError(
                    f"--at: the model does not see {name}={wanted:g} of {self.video}; "
                    f"of {name} its clip has {seen}."
                )
            nearest.append(int(distance.argmin()))
        return tuple(nearest)


def trace_clip(video: str, pipeline: list[dict] | None, config_name: str) -> TracedClip:
    """Read a clip by a pipeline, and trace its pixels back to the video.

    Of a pipeline that gives many views the first is taken.

    Args:
        video (str): The file.
        pipeline (list[dict] | None): The steps, from opening the file to packing.
        config_name (str): The config that it is of, for the sentences.

    Returns:
        TracedClip: The clip.

    Raises:
        UserError: If no frame can be read, or the pipeline does more than to resize and
            crop.
    """
    *steps, rest = split_pipeline(pipeline, config_name)
    sample, note = decode(video, *steps)
    images, rest = list(sample["imgs"]), Compose(rest)

    def run(pictures: list[np.ndarray]) -> Tensor:
        return rest({**sample, "imgs": pictures})["inputs"]

    inputs = run(list(images))
    height, width = images[0].shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    coordinates = np.stack([x, y, np.zeros_like(x)], axis=2)
    traced = run([coordinates] * len(images))
    numbers = run(
        [
            np.broadcast_to(np.float32(number), (height, width, 3))
            for number in range(len(images))
        ]
    )
    view = slice(1) if inputs.dim() == 5 else slice(int(sample["num_clips"]))
    if inputs.dim() not in (4, 5) or traced.shape != inputs.shape:
        raise UserError(
            f"The pipeline of {config_name} gives inputs of shape "
            f"{tuple(inputs.shape)}; (views, 3, T, H, W) or (T, 3, H, W) is needed."
        )
    if len(inputs) > len(inputs[view]):
        note = "; ".join(filter(None, [note, f"the first of {len(inputs)} views"]))
    traced, numbers = (_frames_first(t[view]) for t in (traced, numbers))
    columns, rows = traced[0, 0, 0], traced[0, 1, :, 0]
    straight = torch.stack(torch.meshgrid(columns, rows, indexing="xy"))
    if (traced[:, :2] - straight).abs().max() > 1:
        raise UserError(
            f"The pipeline of {config_name} does not only resize and crop, so that "
            "places cannot be drawn over the video."
        )
    order = numbers[:, 0, 0, 0].round().int().tolist()
    indices = np.asarray(sample["frame_inds"]).reshape(-1)[order]
    return TracedClip(
        video=str(video),
        inputs=inputs[view],
        frames=[images[number] for number in order],
        seconds=indices / (sample.get("avg_fps") or _frame_rate(video)),
        columns=columns.numpy(),
        rows=rows.numpy(),
        note=note,
    )


def _frames_first(inputs: Tensor) -> Tensor:
    """Return one view as frames, (T, 3, H, W)."""
    return inputs[0].transpose(0, 1) if inputs.dim() == 5 else inputs


def _frame_rate(video: str) -> float:
    capture = cv2.VideoCapture(utf8_name(video))
    rate = capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    return rate if 0 < rate < 1000 else 25.0
