"""What a module gives, seen in a dry run of its network without numbers."""

import contextlib
import copy
from typing import Any

import torch
from torch import nn

# Long and large enough for every stride of the video networks in use.
FRAMES, SIZE = 32, 224


def observe_output(network: nn.Module, path: str) -> Any:
    """Run a copy of a network on the meta device, and return what a module gives there.

    The network itself, its statistics and the random state are not touched.

    Args:
        network (nn.Module): A network that takes (B, C, T, H, W) or (B, C, H, W).
        path (str): The module.

    Returns:
        Any: Its output, mostly a tensor on the meta device; None where the network
        cannot be run like this, or does not call the module.
    """
    first = next(
        (m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Conv3d)), None
    )
    if first is None:
        return None
    sizes = (FRAMES, SIZE, SIZE) if isinstance(first, nn.Conv3d) else (SIZE, SIZE)
    seen = []
    # A network of any kind: what goes wrong only means that nothing is known.
    with contextlib.suppress(Exception), torch.no_grad():
        with torch.device("meta"):
            dry = copy.deepcopy(network, _on_meta(network)).eval()
            clip = torch.empty(2, first.in_channels, *sizes)
        host = dry.get_submodule(path)
        host.register_forward_hook(lambda _, __, output: seen.append(output))
        dry(clip)
    return seen[0] if seen else None


def _on_meta(network: nn.Module) -> dict[int, torch.Tensor]:
    """Return deepcopy's memo of the weights: they are copied without their numbers."""
    memo: dict[int, torch.Tensor] = {}
    for weight in network.parameters():
        memo[id(weight)] = nn.Parameter(weight.detach().to("meta"), False)
    for buffer in network.buffers():
        memo[id(buffer)] = buffer.to("meta")
    return memo
