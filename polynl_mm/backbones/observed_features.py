"""What modules give, seen in a dry run of their network without numbers."""

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from polynl_mm.plugins import Plugin

# Large enough for every stride of the video networks in use; some take one size only.
CLIPS = ((16, 224, 224), (32, 224, 224))
IMAGES = ((224, 224), (256, 256))


@dataclass
class Observed:
    """What a dry run has shown.

    Attributes:
        ran (bool): Whether the network could be run with an input of any size.
        outputs (dict[str, list[Any]]): By module path, the outputs for inputs of
            several sizes, mostly tensors on the meta device; none where the network
            could not be run, or does not call the module.
    """

    ran: bool = False
    outputs: dict[str, list[Any]] = field(default_factory=dict)


def observe_outputs(network: nn.Module, paths: Iterable[str]) -> Observed:
    """Run a copy of a network on the meta device, and return what modules give there.

    The network itself, its statistics and the random state are not touched.

    Args:
        network (nn.Module): A network that takes (B, C, T, H, W) or (B, C, H, W).
        paths (Iterable[str]): The modules.

    Returns:
        Observed: Whether it ran, and their outputs.
    """
    seen = Observed(outputs={path: [] for path in paths})
    first = next(
        (m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Conv3d)), None
    )
    if first is None or not seen.outputs:
        return seen
    with torch.device("meta"), torch.no_grad():
        # A network of any kind: what goes wrong means that nothing is known.
        try:
            dry = _copy_to_run(network)
        except Exception:
            return seen
        for path, outputs in seen.outputs.items():
            dry.get_submodule(path).register_forward_hook(
                lambda _, __, output, outputs=outputs: outputs.append(output)
            )
        for sizes in CLIPS if isinstance(first, nn.Conv3d) else IMAGES:
            try:
                dry(torch.empty(_batch_size(network), first.in_channels, *sizes))
            except Exception:
                continue
            seen.ran = True
    return seen


def _copy_to_run(network: nn.Module) -> nn.Module:
    """Return a copy in evaluation, without its plugins and without anybody's hooks."""
    dry = copy.deepcopy(network, _on_meta(network))
    _leave_plugins_out(dry)
    dry.eval()  # not chained: some of MMAction2's backbones return None
    for module in dry.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    return dry


def _leave_plugins_out(network: nn.Module) -> None:
    """Put the identity, whose features have the same shape, in the place of plugins.

    Their chunks over the positions of so large a clip would take hours.
    """
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Plugin):
                setattr(parent, name, nn.Identity())


def _batch_size(network: nn.Module) -> int:
    """Return a batch that 2D networks can split into the frames of their clips."""
    segments = {getattr(module, "num_segments", 1) for module in network.modules()}
    return math.lcm(2, *(n for n in segments if isinstance(n, int) and 0 < n <= 64))


def _on_meta(network: nn.Module) -> dict[int, torch.Tensor]:
    """Return deepcopy's memo of the weights: they are copied without their numbers."""
    memo: dict[int, torch.Tensor] = {}
    for weight in network.parameters():
        memo[id(weight)] = nn.Parameter(weight.detach().to("meta"), False)
    for buffer in network.buffers():
        memo[id(buffer)] = buffer.to("meta")
    return memo
