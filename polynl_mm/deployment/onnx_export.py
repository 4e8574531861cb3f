"""Writing a recognizer as ONNX: from views of a clip to the scores of its classes.

MMAction2's recognizers have no export of their own. What is exported here is what
``tools/test.py`` computes: backbone, neck and head for every view, softmax, and the
mean over the views.
"""

import logging
import os
import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from packaging.version import Version
from torch import Tensor, nn

from polynl_mm.atomic_files import renamed_when_complete
from polynl_mm.deployment.formulas import with_formulas
from polynl_mm.stack.testing_views import frames_of_a_view
from polynl_mm.user_errors import UserError, first_line

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TORCH_FROM = Version("2.6")  # whose exporter takes any batch size
TOLERANCE = 1e-4  # relative to the largest score
CHECKED_SIZES = ((1, 1), (3, 1), (1, 2))  # clips and their views


class Scores(nn.Module):
    """A recognizer as a function of tensors: views -> class scores.

    Args:
        recognizer (nn.Module): A Recognizer2D or Recognizer3D with a head.
        logits (bool): Return the mean of the head's scores, not of probabilities.
        normalize (bool): Take pixels from 0 to 255, and apply the mean and standard
            deviation of the recognizer's data preprocessor.

    Raises:
        UserError: If the recognizer has no head, or no normalisation to include.
    """

    def __init__(
        self, recognizer: nn.Module, logits: bool = False, normalize: bool = False
    ) -> None:
        super().__init__()
        kind = type(recognizer).__name__
        if kind not in ("Recognizer2D", "Recognizer3D") or not recognizer.with_cls_head:
            raise UserError(
                "A Recognizer2D or Recognizer3D with a head can be exported, and the "
                f"config has a {kind}."
            )
        self.recognizer = recognizer
        self.flat = kind == "Recognizer2D"
        self.logits = logits
        self.to_rgb = False
        self.mean = self.std = None
        if normalize:
            self._take_normalization(recognizer.data_preprocessor)

    def _take_normalization(self, preprocessor: nn.Module) -> None:
        if not hasattr(preprocessor, "mean"):
            raise UserError(
                "--normalize needs a data preprocessor with mean and std in the config."
            )
        # (C, 1, 1, 1) of a clip, or (C, 1, 1) of a frame: the last axes of a view.
        self.mean = nn.Parameter(preprocessor.mean.clone(), requires_grad=False)
        self.std = nn.Parameter(preprocessor.std.clone(), requires_grad=False)
        self.to_rgb = bool(getattr(preprocessor, "to_rgb", False))

    def forward(self, views: Tensor) -> Tensor:
        """Score clips.

        Args:
            views (Tensor): (B, V, 3, T, H, W) for a 3D recognizer, (B, V, T, 3, H, W)
                for a 2D one.

        Returns:
            Tensor: (B, classes).
        """
        batch = views.shape[0]
        if self.to_rgb:
            views = views.flip(3 if self.flat else 2)
        if self.mean is not None:
            views = (views - self.mean) / self.std
        if self.flat:  # frames of all views in a row
            views = views.flatten(1, 2)
        features, arguments = self.recognizer.extract_feat(views, test_mode=True)
        scores = self.recognizer.cls_head(features, **arguments)
        scores = scores.reshape(batch, -1, scores.shape[-1])
        if not self.logits:
            scores = scores.softmax(dim=2)
        return scores.mean(dim=1)


@dataclass(frozen=True)
class Check:
    """How the file's outputs compare with the model's.

    Attributes:
        shape (tuple[int, ...]): The input.
        difference (float): The largest, relative to the largest score.
    """

    shape: tuple[int, ...]
    difference: float


def require_packages() -> None:
    """Check that what exporting needs is installed.

    Raises:
        ImportError: Naming what is not, and the command that installs it.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ImportError(
            f"Exporting needs {', '.join(missing)}, not installed here: "
            f"pip install {' '.join(PACKAGES)}"
        )
    if Version(torch.__version__) < TORCH_FROM:
        raise ImportError(
            f"Exporting needs torch >= {TORCH_FROM}, but {torch.__version__} is "
            f'installed: pip install "torch>={TORCH_FROM}"'
        )


def check_view(recognizer: nn.Module, shape: Sequence[int]) -> None:
    """Refuse a shape that is no view of this recognizer.

    Args:
        recognizer (nn.Module): The recognizer.
        shape (Sequence[int]): (3, T, H, W) for a 3D recognizer, (T, 3, H, W) for a 2D
            one.

    Raises:
        UserError: If the channels are at a wrong place, or a size is less than 1.
    """
    flat = type(recognizer).__name__ == "Recognizer2D"
    place, layout = (1, "T 3 H W") if flat else (0, "3 T H W")
    if len(shape) != 4 or shape[place] != 3 or min(shape) < 1:
        raise UserError(
            f"--shape of a {type(recognizer).__name__} is {layout}, such as "
            f"{'8 3 224 224' if flat else '3 8 224 224'}, not "
            f"{' '.join(map(str, shape))}."
        )
    clip = frames_of_a_view(recognizer) if flat else None
    if clip and shape[0] % clip:
        raise UserError(
            f"--shape gives a view of {shape[0]} frames, but this recognizer takes "
            f"them by {clip} (num_segments); give a multiple of {clip}."
        )


def export_onnx(
    recognizer: nn.Module,
    shape: Sequence[int],
    target: str | os.PathLike,
    *,
    logits: bool = False,
    normalize: bool = False,
    opset: int | None = None,
) -> list[Check]:
    """Write a recognizer as ONNX, of any batch size and number of views, and check it.

    Args:
        recognizer (nn.Module): A recognizer of MMAction2; it is not changed.
        shape (Sequence[int]): One view: (3, T, H, W), or (T, 3, H, W) for a 2D
            recognizer; these sizes are fixed in the file.
        target (str | os.PathLike): The ``.onnx`` file.
        logits (bool): As in :class:`Scores`.
        normalize (bool): As in :class:`Scores`.
        opset (int | None): The version of ONNX's operators; default torch's choice.

    Returns:
        list[Check]: The comparisons in onnxruntime, each within 1e-4.

    Raises:
        UserError: If the model cannot be exported, or not with this ``opset``, or the
            file's outputs differ; no file is left then.
        ImportError: If a package is missing.
    """
    require_packages()
    check_view(recognizer, shape)
    recognizer.eval()
    scores = Scores(recognizer, logits, normalize)
    inputs = [_example(size, shape, normalize) for size in CHECKED_SIZES]
    # With sizes of 1, the exporter would take an axis to be always 1.
    example = torch.zeros(2, 2, *shape)
    with _whole_batches(recognizer):
        try:
            program = _export(with_formulas(scores), example, opset)
        except UserError:
            raise
        except Exception as error:
            reason = _innermost(error)
            raise UserError(
                f"The model cannot be exported to ONNX with views of {tuple(shape)}: "
                f"{reason}."
            ) from error
        _check_opset(program, opset)
        target = Path(target)
        with renamed_when_complete(target) as partial:
            program.save(str(partial), external_data=False)
            checks = [_compare(scores, partial, views) for views in inputs]
            worst = max(checks, key=lambda check: check.difference)
            if not worst.difference <= TOLERANCE:
                raise UserError(
                    f"onnxruntime's scores differ from the model's by "
                    f"{worst.difference:.1e} of the largest at input {worst.shape}, "
                    f"more than {TOLERANCE:.0e}; {target} is not written."
                )
    return checks


def _export(scores: nn.Module, views: Tensor, opset: int | None):
    batch, count = torch.export.Dim("batch"), torch.export.Dim("views")
    with _quiet_exporter(), torch.no_grad():
        return torch.onnx.export(
            scores,
            (views,),
            dynamo=True,
            input_names=["views"],
            output_names=["scores"],
            dynamic_shapes=({0: batch, 1: count},),
            opset_version=opset,
            verbose=False,
        )


def _check_opset(program, opset: int | None) -> None:
    """Refuse a version that the exporter silently did not give."""
    written = program.model.opset_imports.get("")
    if opset is not None and written != opset:
        raise UserError(
            f"--opset {opset}: torch cannot write this model with version {opset} of "
            f"ONNX's operators, and would write {written}; leave --opset out, or give "
            f"{written}."
        )


@contextmanager
def _quiet_exporter():
    """Hold back the exporter's notes on packages not here and folds not made."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _compare(scores: nn.Module, file: Path, views: Tensor) -> Check:
    import onnxruntime

    with torch.no_grad():
        expected = scores(views).numpy()
    if not np.isfinite(expected).all():
        raise UserError(
            "The model's own scores of random views are not finite, so that there is "
            "nothing to compare; check that the checkpoint is a trained one."
        )
    session = onnxruntime.InferenceSession(
        str(file), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {"views": views.numpy()})
    if found.shape != expected.shape:
        raise UserError(
            f"onnxruntime's scores have the shape {found.shape} and not "
            f"{expected.shape} at input {tuple(views.shape)}."
        )
    difference = np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30)
    return Check(tuple(views.shape), float(difference))


def _example(size: tuple[int, int], shape: Sequence[int], pixels: bool) -> Tensor:
    generator = torch.Generator().manual_seed(sum(size))
    views = torch.randn(*size, *shape, generator=generator)
    return views.mul(60).add(120).clamp(0, 255) if pixels else views


@contextmanager
def _whole_batches(recognizer: nn.Module):
    """Compute all views at once: a loop over them would fix their number."""
    kept = recognizer.test_cfg
    recognizer.test_cfg = {
        key: value for key, value in (kept or {}).items() if key != "max_testing_views"
    }
    try:
        yield
    finally:
        recognizer.test_cfg = kept


def _innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error).rstrip(".")
