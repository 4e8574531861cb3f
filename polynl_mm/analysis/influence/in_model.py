"""Influence within a model: features of a forward pass, and what a class says."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from polynl_mm.analysis.influence.contributions import (
    Contributions,
    contributions,
    update_of,
)
from polynl_mm.plugins import Plugin
from polynl_mm.user_errors import UserError, did_you_mean


@dataclass
class Pass:
    """What a forward pass of a model has shown of one of its modules.

    Attributes:
        features (Tensor): What went into the module, (B, C, *positions).
        output (Tensor): What came out.
        scores (Tensor): Of the classes, before the softmax where the head allows it,
            (num_classes,).
        gradient (Tensor): Of the score of one class with respect to ``output``.
        label (int): That class: the one that was asked for, or the best.
    """

    features: Tensor
    output: Tensor
    scores: Tensor
    gradient: Tensor
    label: int


def find_plugins(model: nn.Module) -> dict[str, Plugin]:
    """Return a model's plugins by their paths, in the order of the modules."""
    return {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, Plugin)
    }


def choose_plugin(model: nn.Module, path: str | None) -> str:
    """Return the path of a plugin: the one that is named, or the last.

    Args:
        model (nn.Module): The model.
        path (str | None): The path that the user gave.

    Returns:
        str: A path of ``model.named_modules()``.

    Raises:
        UserError: If there is no plugin, or none at that path.
    """
    plugins = find_plugins(model)
    if not plugins:
        raise UserError(
            f"The {type(model).__name__} has no plugin, so there is no block whose "
            "influence could be shown; grad_cam.py shows any module."
        )
    if path is None:
        return list(plugins)[-1]
    if path not in plugins:
        raise UserError(
            f"There is no plugin at {path!r}{did_you_mean(path, plugins)} The plugins "
            f"are at {', '.join(plugins)}."
        )
    return path


def run_through(
    model: nn.Module, inputs: Tensor, path: str, label: int | None = None
) -> Pass:
    """Run a recognizer, and look at a module and at the gradient that it gets.

    The graph begins at the module's output: nothing before it is kept.

    Args:
        model (nn.Module): A recognizer of MMAction2, in evaluation mode.
        inputs (Tensor): One sample as a pipeline gives it, without the batch's axis.
        path (str): The module's path in ``model.named_modules()``.
        label (int, optional): The class; by default the one with the best score.

    Returns:
        Pass: What was seen.

    Raises:
        UserError: If the module is not run exactly once, does not give one tensor, or
            the scores are no finite numbers.
    """
    seen: list[tuple[Tensor, Tensor]] = []

    def look(_, args: tuple, output: Tensor) -> Tensor:
        if not isinstance(output, Tensor):
            raise UserError(
                f"{path} gives a {type(output).__name__}, not features; name a module "
                "within it."
            )
        start = output.detach().clone().requires_grad_()
        seen.append(
            (args[0].detach() if isinstance(args[0], Tensor) else output, start)
        )
        return start * 1  # what follows may work in place

    handle = model.get_submodule(path).register_forward_hook(look)
    frozen = [p for p in model.parameters() if p.requires_grad]
    try:
        for parameter in frozen:
            parameter.requires_grad_(False)
        with torch.enable_grad(), _scores_not_probabilities(model):
            result = model.test_step(dict(inputs=[inputs], data_samples=[_sample()]))
            scores = _scores(result[0])
            if len(seen) != 1:
                raise UserError(
                    f"{path} is run {len(seen)} times for one clip; name a module that "
                    "is run once."
                )
            if not scores.isfinite().all():
                raise UserError(
                    "The network gives scores that are no finite numbers, so that no "
                    "influence is known; its weights or this video's features overflow."
                )
            label = int(scores.argmax()) if label is None else label
            (features, output), score = seen[0], scores[label]
            if not score.requires_grad:
                raise UserError(f"The scores do not depend on {path}.")
            (gradient,) = torch.autograd.grad(score, output)
    finally:
        handle.remove()
        for parameter in frozen:
            parameter.requires_grad_(True)
    return Pass(features, output.detach(), scores.detach(), gradient, label)


def explain(plugin: Plugin, seen: Pass, at: tuple[int, ...]) -> Contributions:
    """Return the contributions to a plugin's update of a position.

    Args:
        plugin (Plugin): The plugin that the pass has looked at.
        seen (Pass): What it has seen.
        at (tuple[int, ...]): The sample and the position, (b, t, y, x) or (b, y, x).

    Returns:
        Contributions: As :func:`contributions` has them.
    """
    return contributions(plugin, seen.features[at[0]], at[1:])


def largest_response(plugin: Plugin, seen: Pass) -> tuple[int, ...]:
    """Return where a plugin's update is longest.

    Args:
        plugin (Plugin): The plugin that the pass has looked at.
        seen (Pass): What it has seen.

    Returns:
        tuple[int, ...]: The sample and the position, (b, t, y, x) or (b, y, x).
    """
    with torch.no_grad():
        lengths = update_of(plugin, seen.features, seen.output).norm(dim=1)
    place = torch.unravel_index(lengths.argmax(), lengths.shape)
    return tuple(int(index) for index in place)


def _sample():
    from mmaction.structures import ActionDataSample

    return ActionDataSample()


def _scores(result) -> Tensor:
    if hasattr(result, "pred_score"):
        return result.pred_score
    return result.pred_scores.item  # MMAction2 before 1.2


@contextmanager
def _scores_not_probabilities(model: nn.Module) -> Iterator[None]:
    """Let the head average scores: a sure softmax has no gradient."""
    head = getattr(model, "cls_head", None)
    before = getattr(head, "average_clips", None)
    if head is not None:
        head.average_clips = "score"
    try:
        yield
    finally:
        if head is not None:
            head.average_clips = before
