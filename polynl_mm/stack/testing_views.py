"""Testing with many views of a video in bounded memory, on 2D and 3D recognizers.

Mends: ``test_cfg.max_testing_views`` of MMAction2 1.2.0 bounds the backbone alone (all
views are normalised to float32 at once), fails on Recognizer2D (it calls ``get`` of a
module), and allows a batch size of 1 only. Here the views stay bytes until their turn
comes, and the features, which are small, meet in the neck and the head as they do
otherwise: scores do not change.
"""

import math
from collections.abc import Callable

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper, stack_batch
from mmengine.registry import HOOKS

from polynl_mm.user_errors import UserError

# Thirty views of 8 x 224 x 224 take 3.4 GB in a ResNet-50, four at once 1.5 GB.
DEFAULT_VIEWS = 4
# What stands for a view of a 2D recognizer that does not say its number of segments.
DEFAULT_SEGMENTS = 8


@HOOKS.register_module()
class BoundedViewsHook(Hook):
    """Bounds the views that are evaluated at once; see :func:`bound_testing_views`.

    Args:
        max_testing_views (int | None): As for :func:`bound_testing_views`.
    """

    def __init__(self, max_testing_views: int | None = None):
        self.max_testing_views = max_testing_views
        self._undo: Callable[[], None] = lambda: None

    def before_train(self, runner) -> None:
        """Meet a bound that does not work before an epoch is spent."""
        self.before_test(runner)
        self._undo()

    def before_test(self, runner) -> None:
        """Bound the model's views."""
        model = runner.model
        while is_model_wrapper(model):
            model = model.module
        self._undo = bound_testing_views(model, self.max_testing_views)

    def after_test(self, runner) -> None:
        """Leave the model as it was."""
        self._undo()

    # Validation is a test in the midst of training.
    before_val, after_val = before_test, after_test


def bound_testing_views(
    recognizer: torch.nn.Module, max_testing_views: int | None = None
) -> Callable[[], None]:
    """Let a recognizer compute the views of a test a few at a time, in place.

    Training and its gradients are not affected.

    Args:
        recognizer (torch.nn.Module): A Recognizer2D or Recognizer3D of MMAction2.
        max_testing_views (int | None): How many clips of a Recognizer3D, or frames of
            a Recognizer2D, go through the backbone at once; 0 for all. Frames are
            rounded down to whole clips of the backbone's ``num_segments``. By default
            that of the recognizer's ``test_cfg``, else four views, or one of each
            video of a larger batch.

    Returns:
        Callable[[], None]: Call it to take the bound back.

    Raises:
        UserError: If a view does not fit in the bound, or views of this recognizer
            cannot be told.
    """
    from mmaction.models.data_preprocessors import ActionDataPreprocessor
    from mmaction.models.recognizers import Recognizer2D, Recognizer3D

    test_cfg = recognizer.test_cfg if hasattr(recognizer, "test_cfg") else None
    test_cfg = dict(test_cfg or {})
    configured = test_cfg.pop("max_testing_views", None)
    if max_testing_views is None:
        max_testing_views = configured
    if max_testing_views is not None and not (
        isinstance(max_testing_views, int) and max_testing_views >= 0
    ):
        raise UserError(
            "max_testing_views must be a whole number of views, or 0 for all at once, "
            f"but it is {max_testing_views!r}."
        )
    extract = getattr(type(recognizer), "extract_feat", None)
    known = extract in (Recognizer2D.extract_feat, Recognizer3D.extract_feat)
    if not known:
        if max_testing_views:
            raise UserError(
                f"max_testing_views works for Recognizer2D and Recognizer3D, not for "
                f"{type(recognizer).__name__}."
            )
        return lambda: None
    clip = frames_of_a_view(recognizer) if extract is Recognizer2D.extract_feat else 1
    if max_testing_views and max_testing_views < (clip or 1):
        raise UserError(
            f"max_testing_views={max_testing_views} counts frames in a Recognizer2D, "
            f"and its clips have {clip}; give a multiple of {clip}."
        )
    undo = [_set(recognizer, "test_cfg", test_cfg)]
    if max_testing_views != 0:
        bound = _Bound(max_testing_views, clip or 1)
        if max_testing_views is None and clip != 1:
            bound.default = DEFAULT_VIEWS * (clip or DEFAULT_SEGMENTS)
        preprocessor = recognizer.data_preprocessor
        if type(preprocessor) is ActionDataPreprocessor and (
            preprocessor.format_shape in ("NCHW", "NCTHW")
        ):
            undo.append(_put_normalisation_off(preprocessor, bound))
        owner, name = _feature_extractor(recognizer)
        undo.append(_set(owner, name, bound.around(getattr(owner, name))))

    def take_back() -> None:
        while undo:
            undo.pop()()

    return take_back


class _Bound:
    """How many views go at once, and what is to be done to them first."""

    def __init__(self, views: int | None, clip: int):
        self.views, self.clip = views, clip
        self.default = DEFAULT_VIEWS
        self.videos = 1
        self.normalise: Callable | None = None

    def around(self, forward: Callable) -> Callable:
        """Return a forward that takes its inputs a part at a time when testing."""

        def in_parts(views: torch.Tensor, *args, **kwargs):
            if torch.is_grad_enabled() and self.normalise is None:
                return forward(views, *args, **kwargs)
            normalise, self.normalise = self.normalise, None
            size = self.views or max(self.default, self.videos * self.clip)
            features = []
            for part in views.split(size // self.clip * self.clip):
                part = part if normalise is None else normalise(part)
                features.append(forward(part, *args, **kwargs))
            return _joined(features)

        return in_parts


def _put_normalisation_off(preprocessor, bound: _Bound) -> Callable[[], None]:
    forward = preprocessor.forward

    def normalise(part: torch.Tensor) -> torch.Tensor:
        return preprocessor.preprocess([part], None)[0][0]

    def stack(data, training: bool = False):
        inputs = data.get("inputs") if isinstance(data, dict) else None
        if training or torch.is_grad_enabled() or not isinstance(inputs, list):
            return forward(data, training)
        data = preprocessor.cast_data(data)
        data["inputs"] = stack_batch(data["inputs"])
        bound.videos, bound.normalise = len(inputs), normalise
        return data

    return _set(preprocessor, "forward", stack)


def _feature_extractor(recognizer) -> tuple[torch.nn.Module, str]:
    """Return the method through which a recognizer calls its backbone."""
    backbone, origin = recognizer.backbone, recognizer.backbone_from
    if origin == "timm":
        return backbone, "forward_features"
    if origin == "torchvision" and hasattr(backbone, "features"):
        return backbone.features, "forward"
    return backbone, "forward"


def frames_of_a_view(recognizer) -> int | None:
    """Return how many frames belong together in a 2D backbone.

    Temporal shifts and plugins need whole clips. Plain 2D backbones take any number,
    and only their plugins may know of clips.

    Args:
        recognizer (torch.nn.Module): A Recognizer2D.

    Returns:
        int | None: The number; None if unknown.
    """
    counts = set()
    for module in recognizer.backbone.modules():
        counts.add(getattr(module, "num_segments", None))
        for hook in module._forward_hooks.values():  # plugins of WithPlugins
            counts.add((getattr(hook, "keywords", None) or {}).get("num_segments"))
    counts = [count for count in counts if isinstance(count, int)]
    return math.lcm(*counts) if counts else None


def _set(owner: object, name: str, value) -> Callable[[], None]:
    """Set an attribute of one instance, and return what restores it."""
    own = vars(owner)
    had, before = name in own, own.get(name)
    own[name] = value

    def restore() -> None:
        if had:
            own[name] = before
        else:
            own.pop(name, None)

    return restore


def _joined(parts: list):
    first = parts[0]
    if len(parts) == 1:
        return first
    if isinstance(first, torch.Tensor):
        return torch.cat(parts)
    return type(first)(_joined(list(same)) for same in zip(*parts, strict=True))
