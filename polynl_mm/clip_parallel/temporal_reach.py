"""How far, and at which rate, the modules of a backbone look over time.

A part of a clip gives the clip's own features where zero padding at the part's borders
does not reach. How far it reaches follows from the temporal kernels, strides and
paddings of the modules that run; a module that mixes time in a way not known here is
refused by name.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from polynl_mm.plugins.base import Plugin
from polynl_mm.user_errors import UserError

# Two lengths, of which the difference is a multiple of any stride in use.
PROBED = (192, 384)
SLIDING = (nn.Conv3d, nn.MaxPool3d, nn.AvgPool3d)
# What treats each position alone, in evaluation.
POINTWISE = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.dropout._DropoutNd,
    nn.Identity,
    *(
        kind
        for kind in vars(nn.modules.activation).values()
        if isinstance(kind, type)
        and issubclass(kind, nn.Module)
        and kind not in (nn.Module, nn.MultiheadAttention, nn.Softmax, nn.LogSoftmax)
        and kind not in (nn.Softmin, nn.Softmax2d)
    ),
)
# Whose own code does no more than call what they hold, add, and sub-sample frames.
CONTAINERS = (
    "BasicBlock3d",
    "Bottleneck3d",
    "CSNBottleneck3d",
    "Conv2plus1d",
    "ConvModule",
    "ModuleList",
    "ResNet2Plus1d",
    "ResNet3d",
    "ResNet3dCSN",
    "ResNet3dPathway",
    "ResNet3dSlowFast",
    "ResNet3dSlowOnly",
    "Sequential",
)


@dataclass
class TemporalReach:
    """What a part of a clip must carry for exact features.

    Attributes:
        stride (int): Parts start at frames that this divides.
        frames (int): So many frames on both sides, a multiple of ``stride``.
        plugins (dict[str, int]): By its path, in the order in which they run: how many
            frames of the clip are one of the plugin's.
        outputs (list[int]): So, too, for each output of the backbone.
    """

    stride: int
    frames: int
    plugins: dict[str, int] = field(default_factory=dict)
    outputs: list[int] = field(default_factory=list)


def temporal_reach(backbone: nn.Module, channels: int, size: tuple) -> TemporalReach:
    """Find how a backbone in evaluation mode looks over time, computing nothing.

    Args:
        backbone (nn.Module): Takes (B, C, T, H, W).
        channels (int): C.
        size (tuple): H and W.

    Returns:
        TemporalReach: For parts of a clip.

    Raises:
        UserError: If a module mixes time in a way that is not known.
    """
    calls = [_lengths(backbone, (1, channels, T, *size)) for T in PROBED]
    strides = [_stride(*pair) for pair in zip(*calls, strict=True)]
    left = right = 0
    plugins, outputs = {}, []
    for (path, module, _), stride in zip(calls[0], strides, strict=True):
        if isinstance(module, SLIDING):
            kernel, padding, dilation = (
                _temporal(getattr(module, name, 1))
                for name in ("kernel_size", "padding", "dilation")
            )
            left += padding * stride
            right += max(dilation * (kernel - 1) - padding, 0) * stride
        elif isinstance(module, Plugin):
            plugins[path] = stride
        elif module is backbone:
            outputs.append(stride)
    total = math.lcm(*strides)
    frames = math.ceil(max(left, right) / total) * total
    return TemporalReach(total, frames, plugins, outputs)


def _stride(short: tuple, long: tuple) -> int:
    path, module, _ = short
    frames = PROBED[1] - PROBED[0]
    longer = long[2] - short[2]
    if longer <= 0 or frames % longer:
        raise UserError(
            f"{path} ({type(module).__name__}) has {short[2]} and {long[2]} frames of "
            f"clips of {PROBED[0]} and {PROBED[1]}; how it treats time is not known, "
            "so that this model cannot read a clip in parts."
        )
    return frames // longer


def _temporal(value) -> int:
    return value[0] if isinstance(value, (tuple, list)) else int(value)


def _lengths(backbone: nn.Module, shape: tuple) -> list[tuple[str, nn.Module, int]]:
    """Return what ran, in order, with the number of frames that it was given."""
    calls = []

    def note(path: str, module: nn.Module, inputs: tuple) -> None:
        _check_known(path, module)
        features = next((x for x in inputs if isinstance(x, torch.Tensor)), None)
        if features is not None and features.ndim == 5:
            calls.append((path, module, features.shape[2]))

    with _watching(backbone, note), FakeTensorMode(allow_non_fake_inputs=True):
        # Where the backbone is, and of its type.
        like = next(backbone.parameters(), torch.empty(0))
        with torch.no_grad():
            outputs = backbone(like.new_empty(shape))
        outputs = outputs if isinstance(outputs, (tuple, list)) else [outputs]
        # The backbone's own call noted its input; its outputs are told apart by place.
        calls = [call for call in calls if call[1] is not backbone]
        calls += [("the backbone's output", backbone, x.shape[2]) for x in outputs]
    return calls


@contextmanager
def _watching(backbone: nn.Module, note: Callable) -> Iterator[None]:
    within = _inside_plugins(backbone)
    hooks = [
        module.register_forward_pre_hook(
            lambda module, inputs, path=path: note(path, module, inputs)
        )
        for path, module in backbone.named_modules()
        if module not in within
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _inside_plugins(backbone: nn.Module) -> set[nn.Module]:
    inside = set()
    for module in backbone.modules():
        if isinstance(module, Plugin):
            inside |= set(module.modules()) - {module}
    return inside


def _check_known(path: str, module: nn.Module) -> None:
    if isinstance(module, Plugin):
        return
    if not any(True for _ in module.children()):
        if isinstance(module, POINTWISE):
            return
        if isinstance(module, SLIDING):
            _check_zeros(path, module)
            return
    elif type(module).__name__ in CONTAINERS:
        return
    raise UserError(
        f"The module {path or 'backbone'} ({type(module).__name__}) may mix time in a "
        "way that is not known, so that this model cannot read a clip in parts; "
        "known are Conv3d, MaxPool3d, AvgPool3d and polynl_mm's plugins in ResNet3d, "
        "SlowOnly, SlowFast, CSN and R(2+1)D."
    )


def _check_zeros(path: str, module: nn.Module) -> None:
    mode = getattr(module, "padding_mode", "zeros")
    if mode != "zeros" or isinstance(getattr(module, "padding", 0), str):
        raise UserError(
            f"The module {path} pads in a way (padding_mode={mode!r}, padding="
            f"{module.padding!r}) that cannot be read in parts; numbers of zeros can."
        )
