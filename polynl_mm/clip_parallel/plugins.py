"""Plugins on clips that ranks share: what each rank must know of the others' frames."""

import functools

import torch.nn as nn
from mmcv.cnn import NonLocal3d
from torch import Tensor

from polynl_mm.clip_parallel.halos import TIME
from polynl_mm.clip_parallel.shares import current_share
from polynl_mm.clip_parallel.sums import sum_over_ranks, whole_clip
from polynl_mm.plugins import Plugin, PolyNL3d


class SharedPolyNL3d(PolyNL3d):
    """A PolyNL3d whose clips are shared over ranks: K numbers a sample travel."""

    def scale_moment(self, moment: Tensor) -> Tensor:
        """Take the mean over all ranks of a mean, which are of equal shares."""
        share = current_share()
        if share is not None and self.axes != "space":
            moment = sum_over_ranks(moment / share.count, share)
        return super().scale_moment(moment)


@functools.cache
def whole_clip_twin(cls: type) -> type:
    """Return the twin of a block that needs all frames of a clip at once.

    Exact for any block. What travels is the features, and the block itself costs each
    rank what it costs one process; everything else stays shared.

    Args:
        cls (type): A module from (B, C, T, H, W) to the same shape.

    Returns:
        type: One whose clips are shared over ranks.
    """

    class OfWholeClips(cls):
        def forward(self, x: Tensor) -> Tensor:
            share = current_share()
            if share is None:
                return super().forward(x)
            clip = whole_clip(x, TIME, share)
            start, end = share.cut(clip.shape[TIME])
            return super().forward(clip)[:, :, start:end].contiguous()

    OfWholeClips.__name__ = OfWholeClips.__qualname__ = cls.__name__
    return OfWholeClips


def needs_whole_clips(module: nn.Module) -> bool:
    """Return whether a block has to see all frames of a clip at once.

    Args:
        module (nn.Module): Any module of a network.

    Returns:
        bool: False for what is no plugin, nor MMCV's non-local block.
    """
    if isinstance(module, NonLocal3d):
        return True
    if not isinstance(module, Plugin) or module.dims == 2:
        return False
    if type(module) is PolyNL3d and module.positions is None:
        return False
    norms = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)
    has_norms = any(isinstance(part, norms) for part in module.modules())
    return module.axes != "space" or has_norms
