"""Running a model's own non-local blocks at the lower cost, on the same weights."""

import torch
from mmcv.cnn.bricks.non_local import NonLocal2d, NonLocal3d
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from torch import nn

from polynl_mm.plugins import NonLocalBlock2d, NonLocalBlock3d

REPLACEMENTS = {NonLocal2d: NonLocalBlock2d, NonLocal3d: NonLocalBlock3d}


def accelerate_non_local(model: nn.Module) -> int:
    """Replace every mmcv NonLocal2d and NonLocal3d of a model by NonLocalBlock.

    Parameters, buffers and state-dict keys stay what they are, as the same objects: an
    optimizer or a DDP wrapper built before goes on working, and so do the hooks of a
    block and of the layers inside it. Outputs are equal up to rounding.

    Args:
        model (nn.Module): The model, changed in place.

    Returns:
        int: How many blocks were replaced.

    Raises:
        ValueError: If the model itself is such a block, which nothing holds.
    """
    if type(model) in REPLACEMENTS:
        raise ValueError(
            f"accelerate_non_local replaces blocks inside a model, but was given a "
            f"{type(model).__name__} itself; use "
            f"{REPLACEMENTS[type(model)].__name__} with its state dict."
        )
    replaced = []
    for path, parent in list(model.named_modules()):
        for name, child in list(parent.named_children()):
            if type(child) in REPLACEMENTS:
                setattr(parent, name, _replace(child))
                replaced.append(f"{path}.{name}".strip("."))
    if replaced:
        print_log(
            f"{len(replaced)} non-local blocks run at the lower cost: "
            f"{', '.join(replaced)}",
            logger="current",
        )
    else:
        print_log(
            f"{type(model).__name__} has no NonLocal2d or NonLocal3d to accelerate.",
            logger="current",
        )
    return len(replaced)


def _replace(block: NonLocal2d | NonLocal3d) -> NonLocalBlock2d | NonLocalBlock3d:
    with torch.device("meta"):  # its weights are those of the block it replaces
        fast = REPLACEMENTS[type(block)](
            block.in_channels,
            block.sub_sample,
            reduction=block.reduction,
            use_scale=block.use_scale,
            mode=block.mode,
        )
    for name, layer in block.named_children():
        setattr(fast, name, layer)
    for name, value in vars(block).items():
        if "hook" in name:  # the same dicts, from which their handles remove them
            setattr(fast, name, value)
    return fast.train(block.training)


@HOOKS.register_module()
class AccelerateNonLocalHook(Hook):
    """Calls :func:`accelerate_non_local` on the runner's model, in any MMEngine tool.

    In a config: ``custom_hooks=[dict(type='AccelerateNonLocalHook')]``.
    """

    def before_run(self, runner) -> None:
        """Replace the blocks before weights are loaded."""
        accelerate_non_local(runner.model)
