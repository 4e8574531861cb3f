"""Making a network clip-parallel: every module that mixes time must be known.

Each module is left as it is where it treats every frame alone, takes the class of its
twin where the twin knows how to share a clip, or is refused by name. Nothing of this is
in a state dict.
"""

import contextlib
import functools
from collections.abc import Iterator

import torch
import torch.nn as nn
from mmcv.cnn.bricks.wrappers import Conv3d

from polynl_mm.clip_parallel import norms, temporal_layers
from polynl_mm.clip_parallel.lengths import UnevenSharesError, explain_lengths
from polynl_mm.clip_parallel.plugins import (
    SharedPolyNL3d,
    needs_whole_clips,
    whole_clip_twin,
)
from polynl_mm.clip_parallel.shares import Share, sharing
from polynl_mm.plugins import Plugin, PolyNL3d
from polynl_mm.user_errors import UserError

TWINS: dict[type, type] = {
    nn.Conv3d: temporal_layers.SharedConv3d,
    Conv3d: temporal_layers.SharedConv3d,
    nn.MaxPool3d: temporal_layers.SharedMaxPool3d,
    nn.AvgPool3d: temporal_layers.SharedAvgPool3d,
    nn.AdaptiveAvgPool3d: temporal_layers.SharedAdaptiveAvgPool3d,
    nn.AdaptiveMaxPool3d: temporal_layers.SharedAdaptiveMaxPool3d,
    nn.BatchNorm1d: norms.SharedBatchNorm1d,
    nn.BatchNorm2d: norms.SharedBatchNorm2d,
    nn.BatchNorm3d: norms.SharedBatchNorm3d,
    nn.GroupNorm: norms.SharedGroupNorm,
    nn.InstanceNorm3d: norms.SharedInstanceNorm3d,
    PolyNL3d: SharedPolyNL3d,
}
# What treats each frame alone, or only calls what is in it.
FRAMEWISE = {
    "torch.nn.modules": (
        "AdaptiveAvgPool2d", "AdaptiveMaxPool2d", "AvgPool2d", "Conv2d", "MaxPool2d",
        "Dropout", "Dropout2d", "Dropout3d",
        "ELU", "GELU", "Hardsigmoid", "Hardswish", "LeakyReLU", "PReLU", "ReLU",
        "ReLU6", "SiLU", "Sigmoid", "Softplus", "Tanh",
        "Identity", "ModuleDict", "ModuleList", "Sequential",
        "SyncBatchNorm",  # of all ranks, which hold whole clips together
        "InstanceNorm2d",
    ),
    "mmengine.model": ("BaseModule", "ModuleDict", "ModuleList", "Sequential"),
    "mmcv.cnn.bricks": (
        "ConvModule", "Conv2d", "MaxPool2d", "Swish", "HSigmoid", "HSwish",
    ),
    "mmaction.models": (
        "ActionDataPreprocessor", "Recognizer2D", "Recognizer3D",
        "ResNet", "BasicBlock", "Bottleneck", "C2D",
        "ResNet3d", "BasicBlock3d", "Bottleneck3d", "ResNet3dSlowOnly",
        "ResNet3dPathway", "ResNet3dCSN", "CSNBottleneck3d", "ResNet2Plus1d",
        "Conv2plus1d", "ResNetTSM", "MobileNetV2", "MobileNetV2TSM",
        "InvertedResidual", "X3D", "BlockX3D", "SEModule",
        "I3DHead", "SlowFastHead", "TSNHead", "X3DHead",
    ),
}  # fmt: skip
# What sees the pooled features, or scores, alone.
AFTER_POOLING = ("cls_head.fc_cls", "cls_head.fc1", "cls_head.fc2", "cls_head.loss_cls")


@contextlib.contextmanager
def clip_parallel_network(network: nn.Module, ranks: int) -> Iterator[None]:
    """Let a network compute on this rank's frames what all its ranks compute together.

    Args:
        network (nn.Module): A recognizer, or a backbone.
        ranks (int): How many ranks share a clip.

    Raises:
        UserError: If a module mixes time in a way that is not known here; it is named.
    """
    changes = _changes(network)
    _check_pooling(network)
    before = [(module, type(module)) for module, _ in changes]
    for module, twin in changes:
        module.__class__ = twin
    seen = _SeenLengths()
    watch = network.register_forward_pre_hook(seen.see)
    try:
        yield
    except UnevenSharesError as error:
        probe = functools.partial(_takes, network, seen, ranks)
        raise UserError(
            explain_lengths(error, seen.frames * ranks, ranks, probe)
        ) from error
    finally:
        watch.remove()
        for module, cls in before:
            module.__class__ = cls


class _SeenLengths:
    """How many frames of a rank the network has got last, and in which form."""

    frames, x = 0, None

    def see(self, network: nn.Module, args: tuple) -> None:
        x = next((a for a in args if isinstance(a, torch.Tensor)), None)
        if x is not None and x.dim() >= 5:
            self.frames, self.x = x.shape[-3], x


@torch.no_grad()
def _takes(network: nn.Module, seen: _SeenLengths, ranks: int, frames: int) -> bool:
    """Return whether shares of so many frames stay equal to the end of the network."""
    network = getattr(network, "backbone", network)
    network.eval()  # returns None in MMAction2's backbones
    alone = Share(0, ranks, tuple(range(ranks)), None)
    x = seen.x.new_zeros(1, seen.x.shape[-4], frames, 32, 32)
    try:
        with sharing(alone):
            network(x)
    except UnevenSharesError:
        return False
    return True


def _changes(network: nn.Module) -> list[tuple[nn.Module, type]]:
    """Return which modules take which class."""
    from polynl_mm.clip_parallel.mmaction_layers import (
        mmaction_twins,
        own_segments_twin,
        takes_segments,
    )

    twins, changes, done = {**TWINS, **mmaction_twins()}, [], []
    for name, module in network.named_modules():
        if name.startswith(tuple(done)):
            continue
        if needs_whole_clips(module):
            changes.append((module, whole_clip_twin(type(module))))
            done.append(f"{name}.")  # what is in it sees whole clips, too
        elif type(module) in twins:
            changes.append((module, twins[type(module)]))
        elif takes_segments(type(module)):
            changes.append((module, own_segments_twin(type(module))))
        elif not _is_framewise(network, name, module):
            kind = type(module)
            raise UserError(
                f"Clips cannot be shared over ranks: {name or 'the network'} is a "
                f"{kind.__module__}.{kind.__name__}, and how it treats time is not "
                "known. Train without --clip-parallel; or, if it treats each frame "
                "alone, give its class the attribute framewise = True."
            )
    return changes


def _is_framewise(network: nn.Module, name: str, module: nn.Module) -> bool:
    """Return whether a module treats each frame alone, but for what is in it."""
    parents = [name[:i] for i, letter in enumerate(name) if letter == "."]
    if any(isinstance(network.get_submodule(p), Plugin) for p in (*parents, name)):
        return True
    if any(f".{part}" in f".{name}" for part in AFTER_POOLING):
        return True
    kind = type(module)
    known = any(
        kind.__name__ in names and kind.__module__.startswith(package)
        for package, names in FRAMEWISE.items()
    )
    return known or getattr(module, "framewise", False)


def _check_pooling(network: nn.Module) -> None:
    """Refuse a head that does not pool over time, and what only some tests do."""
    head = getattr(network, "cls_head", None)
    pools = [getattr(head, name, None) for name in ("avg_pool", "pool", "consensus")]
    if head is not None and not any(pools):
        raise UserError(
            f"Clips cannot be shared over ranks: cls_head is a {type(head).__name__} "
            "that does not pool over time; set spatial_type='avg'."
        )
    if (getattr(network, "test_cfg", None) or {}).get("fcn_test"):
        raise UserError(
            "Clips cannot be shared over ranks with model.test_cfg.fcn_test; leave it "
            "out, or test without --clip-parallel."
        )
