"""Pictures of what a recognizer was shown and what it said, while it is evaluated.

Mends: ``VisualizationHook`` of MMAction2 1.2.0 fails on every recognizer (it permutes
four of the five axes of a batch of clips, and four of three of a frame), and its
visualizer looks for predictions under names that data samples no longer have. Here the
hook of that name, with its arguments, draws a strip of frames.
"""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from torch import Tensor

from polynl_mm.atomic_files import renamed_when_complete
from polynl_mm.stack.literal_texts import literal_texts
from polynl_mm.user_errors import UserError

FRAMES_SHOWN = 8
CLASSES_SHOWN = 3


def replace_visualization_hook() -> None:
    """Register :class:`PredictionPicturesHook` as MMAction2's ``VisualizationHook``."""
    import mmaction.engine  # noqa: F401  (registers what is replaced)
    from mmaction.registry import HOOKS

    HOOKS.register_module(
        name="VisualizationHook", module=PredictionPicturesHook, force=True
    )


class PredictionPicturesHook(Hook):
    """Draws every n-th sample of a validation or test as a strip of its frames.

    The picture is ``OUT_DIR/NUMBER_NAME.png``: NUMBER is that of the sample in the
    dataset, from 0, NAME that of its video where the pipeline packs ``filename``.

    Args:
        enable (bool): Draw at all.
        interval (int): Draw the samples whose number is a multiple of this, at least 1.
        show (bool): Open a window for each; in a single process only.
        out_dir (str, optional): Where the pictures go; by default ``pictures`` in the
            folder of the run's log, or nowhere with ``show``.
        wait_time (float): Seconds that a window stays; 0 waits until it is closed.

    Raises:
        UserError: If an argument is out of range, or no window can be opened.
    """

    def __init__(
        self,
        enable: bool = False,
        interval: int = 5000,
        show: bool = False,
        out_dir: str | None = None,
        wait_time: float = 2,
    ) -> None:
        if not isinstance(interval, int) or interval < 1:
            raise UserError(
                f"interval of the pictures is a whole number from 1, not {interval!r}."
            )
        if not isinstance(wait_time, (int, float)) or not wait_time >= 0:
            raise UserError(
                f"wait_time of the windows is in seconds from 0, not {wait_time!r}."
            )
        if enable and show:
            _check_window()
        self.enable = enable
        self.interval = interval
        self.show = show
        self.out_dir = out_dir
        self.wait_time = wait_time

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Draw samples of a validation."""
        self._draw_batch(runner, runner.val_dataloader, batch_idx, data_batch, outputs)

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Draw samples of a test."""
        self._draw_batch(runner, runner.test_dataloader, batch_idx, data_batch, outputs)

    def _draw_batch(
        self, runner, loader, batch_idx: int, data_batch: dict, outputs: Sequence
    ) -> None:
        if not self.enable:
            return
        first = batch_idx * (loader.batch_size or len(outputs))
        for place, (clips, sample) in enumerate(
            zip(data_batch["inputs"], outputs, strict=True)
        ):
            # MMEngine's samplers deal the samples out to the ranks in turn.
            number = (first + place) * get_world_size() + get_rank()
            # Those beyond the end fill up the last batch of some ranks.
            if number % self.interval == 0 and number < len(loader.dataset):
                self._draw_sample(runner, loader.dataset, number, clips, sample)

    @literal_texts()
    def _draw_sample(self, runner, dataset, number: int, clips: Tensor, sample) -> None:
        source = Path(sample.get("filename") or sample.get("frame_dir") or "")
        classes = getattr(dataset, "metainfo", {}).get("classes")
        title = describe(sample, classes, source.name or f"sample {number}")
        if self.out_dir is not None or not self.show:
            folder = Path(self.out_dir or Path(runner.log_dir, "pictures"))
            folder.mkdir(parents=True, exist_ok=True)
            stem = "_".join(filter(None, (f"{number:06d}", source.stem)))
            figure = Figure()
            draw_strip(figure, first_clip(clips), title)
            with renamed_when_complete(folder / f"{stem}.png") as partial:
                figure.savefig(partial, format="png")
        if self.show:
            figure = plt.figure()
            draw_strip(figure, first_clip(clips), title)
            if self.wait_time:
                plt.pause(self.wait_time)
            else:
                plt.show()
            plt.close(figure)


def first_clip(clips: Tensor) -> np.ndarray:
    """Return the frames of a sample's first clip.

    Args:
        clips (Tensor): (clips, 3, T, H, W) of a 3D recognizer, or (frames, 3, H, W) of
            a 2D one, values 0 to 255.

    Returns:
        numpy.ndarray: (T, H, W, 3), uint8.

    Raises:
        UserError: If these are no RGB frames.
    """
    if clips.dim() not in (4, 5) or clips.shape[1] != 3:
        raise UserError(
            "pictures are drawn of RGB frames, (clips, 3, T, H, W) or (frames, 3, H, "
            f"W), but the inputs of this config have the shape {tuple(clips.shape)}."
        )
    frames = clips[0].transpose(0, 1) if clips.dim() == 5 else clips
    return frames.permute(0, 2, 3, 1).clamp(0, 255).to(torch.uint8).cpu().numpy()


def describe(sample, classes: Sequence[str] | None, name: str) -> str:
    """Return a sample's name, true class and best scores, a line each.

    Args:
        sample (ActionDataSample): With ``pred_score``, (classes,), and perhaps
            ``gt_label``.
        classes (Sequence[str] | None): The classes' names; default their numbers.
        name (str): What to call the sample.

    Returns:
        str: The lines.
    """

    def called(label: int) -> str:
        return classes[label] if classes else f"class {label}"

    truth = sample.gt_label.tolist() if "gt_label" in sample else []
    scores, labels = sample.pred_score.topk(min(CLASSES_SHOWN, len(sample.pred_score)))
    best = zip(labels.tolist(), scores.tolist(), strict=True)
    lines = [name]
    if truth:
        lines.append("true: " + ", ".join(called(label) for label in truth))
    said = ", ".join(f"{called(label)} ({score:.3g})" for label, score in best)
    return "\n".join([*lines, f"predicted: {said}"])


def draw_strip(figure: Figure, frames: np.ndarray, title: str) -> None:
    """Draw frames side by side, evenly chosen where they are many.

    Args:
        figure (Figure): Where to draw; its size is set.
        frames (numpy.ndarray): (T, H, W, 3), uint8.
        title (str): What stands above.
    """
    count = min(len(frames), FRAMES_SHOWN)
    chosen = np.linspace(0, len(frames) - 1, count).round().astype(int)
    height, width = frames.shape[1:3]
    figure.set_size_inches(1.6 * max(count, 3), 1.6 * height / width + 1.0)
    figure.set_layout_engine("constrained")
    figure.suptitle(title, fontsize="small", ha="left", x=0.01)
    row = figure.subplots(1, count, squeeze=False)[0]
    for axes, index in zip(row, chosen, strict=True):
        axes.imshow(frames[index])
        axes.set_title(f"frame {index}", fontsize="x-small")
        axes.set_axis_off()


def _check_window() -> None:
    if get_world_size() > 1:
        raise UserError(
            "windows are shown in a single process only; test with one, or write the "
            "pictures to a folder (--show-dir DIR)."
        )
    if plt.get_backend().lower() == "agg":
        raise UserError(
            "no window can be opened: there is no screen, or matplotlib has no toolkit "
            "for it (MPLBACKEND); write the pictures to a folder (--show-dir DIR)."
        )
