"""Blocks that need all frames of a clip at once, on clips that ranks share.

Our own plugins do not: they ask for summaries. MMCV's non-local block, which networks
of MMAction2 can have of themselves, does.
"""

import functools

import torch.nn as nn
from mmcv.cnn import NonLocal3d
from torch import Tensor

from polynl_mm.clip_parallel.halos import TIME
from polynl_mm.clip_parallel.shares import current_share
from polynl_mm.clip_parallel.sums import whole_clip
from polynl_mm.plugins import Plugin


def needs_whole_clips(module: nn.Module) -> bool:
    """Return whether a block has to see all frames of a clip at once.

    Args:
        module (nn.Module): Any module of a network.

    Returns:
        bool: Only for MMCV's non-local block.
    """
    return isinstance(module, NonLocal3d) and not isinstance(module, Plugin)


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
