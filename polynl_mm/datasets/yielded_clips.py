"""What the pipelines of a config really yield, as frames that can be looked at."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.utils import import_modules_from_strings
from torch import Tensor

from polynl_mm.datasets import SPLITS
from polynl_mm.user_errors import UserError, did_you_mean


@dataclass(frozen=True)
class Clip:
    """A sample as the model would get it.

    Attributes:
        name (str): Of its video or folder of frames.
        label (str): Its class, or its classes.
        frames (np.ndarray): (views, T, H, W, 3), uint8, RGB.
        shape (tuple[int, ...]): Of what the pipeline yields.
    """

    name: str
    label: str
    frames: np.ndarray
    shape: tuple[int, ...]


def build_dataset(cfg: Config, split: str) -> Any:
    """Build the dataset of a config's data loader.

    Args:
        cfg (Config): The config.
        split (str): ``'train'``, ``'val'`` or ``'test'``.

    Returns:
        Dataset: MMAction2's.

    Raises:
        UserError: If the config has no such data loader.
    """
    from mmaction.registry import DATASETS
    from mmaction.utils import register_all_modules

    loader = cfg.get(f"{split}_dataloader")
    if not loader or not loader.get("dataset"):
        there = [s for s in SPLITS if cfg.get(f"{s}_dataloader")]
        raise UserError(
            f"The config has no {split}_dataloader with a dataset"
            f"{did_you_mean(split, there) or f'; it has {there}.'}"
        )
    if cfg.get("custom_imports"):
        import_modules_from_strings(**cfg.custom_imports)
    register_all_modules(init_default_scope=False)
    init_default_scope(cfg.get("default_scope") or "mmaction")
    return DATASETS.build(loader.dataset)


def iterate_clips(dataset: Any, number: int) -> Iterator[Clip]:
    """Yield samples spread over a dataset.

    Args:
        dataset (Dataset): From :func:`build_dataset`.
        number (int): How many at most.

    Yields:
        Clip: Each once, in their order.
    """
    count = min(number, len(dataset))
    for index in np.linspace(0, len(dataset) - 1, count).round().astype(int):
        about = dataset.get_data_info(int(index))
        source = about.get("filename") or about.get("frame_dir") or f"sample {index}"
        sample = dataset[int(index)]
        if sample is None:
            continue  # MMEngine's datasets give None for what they skip
        inputs = sample["inputs"]
        labels = sample["data_samples"].get("gt_label")
        shown = "?" if labels is None else _labels(labels, dataset)
        frames = as_frames(inputs, getattr(dataset, "pipeline", None))
        yield Clip(Path(source).name, shown, frames, tuple(inputs.shape))


def as_frames(inputs: Tensor, pipeline: Any = None) -> np.ndarray:
    """Bring what a pipeline yields back to pictures.

    Args:
        inputs (Tensor): (views, 3, T, H, W) of a 3D recognizer or (T, 3, H, W) of a 2D
            one, as bytes, or normalised by a ``Normalize`` of the pipeline.
        pipeline (Compose | None): The pipeline, whose ``Normalize`` is undone.

    Returns:
        np.ndarray: (views, T, H, W, 3), uint8.

    Raises:
        UserError: If these are no RGB frames.
    """
    if inputs.dim() not in (4, 5) or inputs.shape[1] != 3:
        raise UserError(
            "Pictures are drawn of RGB frames, (views, 3, T, H, W) or (T, 3, H, W), "
            f"but this pipeline yields the shape {tuple(inputs.shape)}."
        )
    clips = inputs if inputs.dim() == 5 else inputs.transpose(0, 1).unsqueeze(0)
    values = clips.permute(0, 2, 3, 4, 1).float()  # (views, T, H, W, 3)
    for step in reversed(getattr(pipeline, "transforms", [])):
        if type(step).__name__ == "Normalize":
            values = values * torch.from_numpy(step.std) + torch.from_numpy(step.mean)
            if getattr(step, "to_bgr", False):
                values = values.flip(-1)
            break
    return values.round().clamp(0, 255).to(torch.uint8).numpy()


def _labels(labels: Tensor, dataset: Any) -> str:
    classes = getattr(dataset, "metainfo", {}).get("classes")
    return ", ".join(
        classes[label] if classes else f"class {label}"
        for label in labels.reshape(-1).tolist()
    )
