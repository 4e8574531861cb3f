"""What a module gives, seen in a dry run of its network without numbers."""

import contextlib
import copy
from typing import Any

import torch
from torch import nn

# Large enough for every stride of the video networks in use; some take one size only.
CLIPS = ((16, 224, 224), (32, 224, 224))
IMAGES = ((224, 224), (256, 256))


def observe_outputs(network: nn.Module, path: str) -> list[Any]:
    """Run a copy of a network on the meta device, and return what a module gives there.

    The network itself, its statistics and the random state are not touched.

    Args:
        network (nn.Module): A network that takes (B, C, T, H, W) or (B, C, H, W).
        path (str): The module.

    Returns:
        list[Any]: Its outputs for inputs of several sizes, mostly tensors on the meta
        device; none for sizes that the network cannot be run with, and none at all
        where it does not call the module.
    """
    first = next(
        (m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Conv3d)), None
    )
    if first is None:
        return []
    seen: list[Any] = []
    with torch.device("meta"), torch.no_grad():
        dry = copy.deepcopy(network, _on_meta(network))
        dry.eval()  # not chained: some of MMAction2's backbones return None
        dry.get_submodule(path).register_forward_hook(
            lambda _, __, output: seen.append(output)
        )
        for sizes in CLIPS if isinstance(first, nn.Conv3d) else IMAGES:
            # A network of any kind: what goes wrong means that nothing is known.
            with contextlib.suppress(Exception):
                dry(torch.empty(2, first.in_channels, *sizes))
    return seen


def _on_meta(network: nn.Module) -> dict[int, torch.Tensor]:
    """Return deepcopy's memo of the weights: they are copied without their numbers."""
    memo: dict[int, torch.Tensor] = {}
    for weight in network.parameters():
        memo[id(weight)] = nn.Parameter(weight.detach().to("meta"), False)
    for buffer in network.buffers():
        memo[id(buffer)] = buffer.to("meta")
    return memo
