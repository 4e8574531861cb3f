"""MMAction2's own ways of mixing time, each rank holding its own frames."""

import functools

import torch
from torch import Tensor
from torch.nn import functional

from polynl_mm.clip_parallel.halos import TIME, exchange_halos
from polynl_mm.clip_parallel.lengths import UnevenSharesError
from polynl_mm.clip_parallel.shares import current_share, own_segments
from polynl_mm.clip_parallel.sums import sum_over_ranks


@functools.cache
def mmaction_twins() -> dict[type, type]:
    """Return the twins of MMAction2's modules; imports it.

    Returns:
        dict[type, type]: From a class to the one that shares clips over ranks.
    """
    from mmaction.models.backbones.resnet3d_slowfast import ResNet3dSlowFast
    from mmaction.models.backbones.resnet_tsm import TemporalShift
    from mmaction.models.heads.base import AvgConsensus
    from mmaction.models.heads.tsm_head import TSMHead

    class SharedTemporalShift(TemporalShift):
        """A TemporalShift whose clips are shared over ranks."""

        def forward(self, x: Tensor) -> Tensor:
            if current_share() is None:
                return super().forward(x)
            return self.net(_shift(x, self.num_segments, self.shift_div))

    class SharedSlowFast(ResNet3dSlowFast):
        """A ResNet3dSlowFast whose clips are shared over ranks."""

        def forward(self, x: Tensor) -> tuple:
            # Sub-sampling begins with a rank's first frame, which is one of the clip's.
            rate, frames = self.resample_rate, x.shape[TIME]
            if current_share() is not None and frames % rate:
                raise UnevenSharesError("the slow pathway", frames, rate)
            return super().forward(x)

    class SharedTSMHead(TSMHead):
        """A TSMHead whose clips are shared over ranks."""

        def forward(self, x: Tensor, num_segs: int, **kwargs) -> Tensor:
            share, dropout, whole = current_share(), self.dropout, self.num_segments
            if share is None:
                return super().forward(x, num_segs, **kwargs)
            pooled = self.is_shift and self.temporal_pool
            frames = whole // 2 if pooled else whole
            if dropout is not None:  # each frame's is another

                def of_own_frames(y: Tensor) -> Tensor:
                    kept = y.new_ones(len(y) * share.count, y.shape[1])
                    kept = functional.dropout(kept, dropout.p, dropout.training)
                    start, end = share.cut(frames)
                    kept = kept.unflatten(0, (-1, frames))[:, start:end]
                    return y * kept.flatten(0, 1)

                self.__dict__["dropout"] = of_own_frames
            try:
                self.num_segments = own_segments(whole)
                return super().forward(x, num_segs, **kwargs)
            finally:
                self.num_segments = whole
                self.__dict__.pop("dropout", None)

    class SharedAvgConsensus(AvgConsensus):
        """An AvgConsensus over segments that are shared over ranks."""

        def forward(self, x: Tensor) -> Tensor:
            y, share = super().forward(x), current_share()
            return y if share is None else sum_over_ranks(y / share.count, share)

    return {
        TemporalShift: SharedTemporalShift,
        ResNet3dSlowFast: SharedSlowFast,
        TSMHead: SharedTSMHead,
        AvgConsensus: SharedAvgConsensus,
    }


def takes_segments(cls: type) -> bool:
    """Return whether a class of MMAction2 only folds and unfolds frames.

    Args:
        cls (type): Of any module.

    Returns:
        bool: True for what ResNetTSM pools over time with, a class that it makes for
        each network, and for what it wraps its non-local blocks in.
    """
    return cls.__module__ == "mmaction.models.backbones.resnet_tsm" and (
        cls.__qualname__.rpartition(".")[2] in ("TemporalPool", "NL3DWrapper")
    )


@functools.cache
def own_segments_twin(cls: type) -> type:
    """Return the twin of a module that folds and unfolds a clip's segments.

    Args:
        cls (type): A class with ``num_segments``.

    Returns:
        type: One that takes a rank's own segments for all.
    """

    class OfOwnSegments(cls):
        def forward(self, x: Tensor) -> Tensor:
            whole = self.num_segments
            try:
                self.num_segments = own_segments(whole)
                return super().forward(x)
            finally:
                self.num_segments = whole

    OfOwnSegments.__name__ = OfOwnSegments.__qualname__ = cls.__name__
    return OfOwnSegments


def _shift(x: Tensor, num_segments: int, shift_div: int) -> Tensor:
    """Shift channels by a frame, from the neighbours and to them.

    Args:
        x (Tensor): This rank's frames, (B * T, C, H, W).
        num_segments (int): The frames of a whole clip.
        shift_div (int): One in so many channels moves to the front, and as many back.

    Returns:
        Tensor: The same shape.
    """
    frames = own_segments(num_segments)
    clips = x.unflatten(0, (-1, frames)).transpose(1, 2)  # (B, C, T, H, W)
    fold = clips.shape[1] // shift_div
    early, late, still = clips.tensor_split((fold, 2 * fold), 1)
    early, _, after = exchange_halos(early, 0, 1, current_share())
    late, before, _ = exchange_halos(late, 1, 0, current_share())
    if not after.shape[TIME]:
        after = torch.zeros_like(early[:, :, :1])
    if not before.shape[TIME]:
        before = torch.zeros_like(late[:, :, :1])
    early = torch.cat([early[:, :, 1:], after], TIME)
    late = torch.cat([before, late[:, :, :-1]], TIME)
    return torch.cat([early, late, still], 1).transpose(1, 2).flatten(0, 1)
