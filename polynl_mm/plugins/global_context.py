"""Global context: one pooling of all positions, the same for every query.

Cao, Xu, Lin, Wei, Hu: "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and
Beyond", 2019, https://arxiv.org/abs/1904.11492. The names of the options are those of
mmcv's ContextBlock.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn as nn
from mmengine.registry import MODELS
from torch import Tensor

from polynl_mm.ops.factored import global_context
from polynl_mm.ops.precision import accumulate_dtype
from polynl_mm.ops.summaries import holder, mean_of_all
from polynl_mm.plugins.base import Axes, groups_as_samples
from polynl_mm.plugins.position_encoding import Positions
from polynl_mm.plugins.residual import CONVOLUTIONS, ResidualPlugin
from polynl_mm.plugins.shared_norms import normalise

POOLING_TYPES = ("att", "avg")
FUSION_TYPES = ("channel_add", "channel_mul")


class _GlobalContext(ResidualPlugin):
    _abbr_ = "global_context"

    def __init__(
        self,
        in_channels: int,
        *,
        reduction: int = 4,
        axes: Axes = "spacetime",
        norm_cfg: dict | None = None,
        zero_init: bool = True,
        ratio: float | None = None,
        pooling_type: str = "att",
        fusion_types: Sequence[str] = ("channel_add",),
        positions: Positions | None = None,
    ) -> None:
        self._check_options(in_channels, ratio, pooling_type, fusion_types, norm_cfg)
        super().__init__(
            in_channels,
            reduction=reduction,
            axes=axes,
            norm_cfg=norm_cfg,
            zero_init=zero_init,
            inner_channels=None if ratio is None else int(in_channels * ratio),
            positions=positions,
        )
        inner = self.inner_channels
        self.pooling_type = pooling_type
        self.fusion_types = tuple(fusion_types)
        if pooling_type == "att":
            self.phi = self.projection(in_channels, 1)
        if "channel_add" in fusion_types:
            self.g = self.projection(in_channels, inner)
            self.layer_norm = nn.LayerNorm(inner)
        else:
            self.out = None
        if "channel_mul" in fusion_types:
            self.multiplier = _Multiplier(in_channels, inner, self.dims, zero_init)
        self.reset_parameters()

    def _check_options(
        self,
        in_channels: int,
        ratio: float | None,
        pooling_type: str,
        fusion_types: Sequence[str],
        norm_cfg: dict | None,
    ) -> None:
        name = type(self).__name__
        if pooling_type not in POOLING_TYPES:
            raise ValueError(
                f"{name}: pooling_type is one of {POOLING_TYPES}, not {pooling_type!r}."
            )
        known = isinstance(fusion_types, list | tuple) and set(fusion_types)
        if not known or not known <= set(FUSION_TYPES):
            raise ValueError(
                f"{name}: fusion_types is a list of one or both of {FUSION_TYPES}, not "
                f"{fusion_types!r}."
            )
        if norm_cfg and "channel_add" not in fusion_types:
            raise ValueError(
                f"{name}: norm_cfg normalises what 'channel_add' adds, which is not "
                f"among fusion_types={fusion_types}; set norm_cfg=None."
            )
        number = isinstance(ratio, int | float) and not isinstance(ratio, bool)
        if ratio is not None and not (number and 1 <= in_channels * ratio < math.inf):
            raise ValueError(
                f"{name}: ratio is a number that leaves the bottleneck at least one of "
                f"in_channels={in_channels} channels, such as 0.25, not {ratio!r}."
            )

    def reset_parameters(self) -> None:
        """Set the weights as at construction: the identity where ``zero_init``."""
        if self.out is not None:
            super().reset_parameters()
            return
        for child in self.children():
            child.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Return x times what ``channel_mul``, plus what ``channel_add`` makes of it.

        Args:
            x (Tensor): Features, (B, C, *positions).

        Returns:
            Tensor: Features of the same shape and type.

        Raises:
            ValueError: If the shape is not the one this plugin was built for.
        """
        self.check_input(x)
        pooled = self._pool(self.placed(x))
        y = x
        if "channel_mul" in self.fusion_types:
            y = y * self.multiplier(pooled).to(x.dtype)
        if "channel_add" in self.fusion_types:
            added = self.out(_bottleneck(pooled, self.g, self.layer_norm))
            if self.norm is not None:
                # Contexts over time are the same in all parts, and whole.
                shared = holder() if self.others is None else None
                added = normalise(self.norm, added, shared)
            y = y + added.to(x.dtype)
        return y

    def _pool(self, x: Tensor) -> Tensor:
        """Return the context, (B, C, *positions) of size 1 along the axes looked over.

        ``sum_j softmax_j(phi x_j) x_j``, or the mean, one for each group.
        """
        samples = groups_as_samples(x, self.axes)
        if self.pooling_type == "att":
            logits = groups_as_samples(self.phi(x), self.axes)
            pooled = global_context(logits, samples, others=self.others)
        else:
            pooled = samples.mean(2, keepdim=True, dtype=accumulate_dtype(x))
            if self.others is not None:
                pooled = mean_of_all(self.others, pooled, samples.shape[2])
            pooled = pooled.to(x.dtype)
        positions = self._context_positions(x)
        pooled = pooled.reshape(x.shape[0], math.prod(positions), x.shape[1]).mT
        return pooled.reshape(*x.shape[:2], *positions)

    def _context_positions(self, x: Tensor) -> tuple[int, ...]:
        looked_over = {
            "spacetime": range(self.dims),
            "space": range(self.dims - 2, self.dims),
            "time": range(self.dims - 2),
        }[self.axes]
        sizes = enumerate(x.shape[2:])
        return tuple(1 if axis in looked_over else size for axis, size in sizes)


class _Multiplier(nn.Module):
    """``1 + alpha (sigmoid(out(ReLU(LN(g context)))) - 1)``: alpha = 1 is published.

    Published, the block starts by halving its features. ``alpha`` starts at zero
    instead, so that it starts as the identity.
    """

    def __init__(self, channels: int, inner: int, dims: int, zero_init: bool) -> None:
        super().__init__()
        self.zero_init = zero_init
        self.g = CONVOLUTIONS[dims](channels, inner, 1)
        self.layer_norm = nn.LayerNorm(inner)
        self.out = CONVOLUTIONS[dims](inner, channels, 1)
        self.alpha = nn.Parameter(torch.empty(1))

    def reset_parameters(self) -> None:
        for child in self.children():
            child.reset_parameters()
        nn.init.constant_(self.alpha, 0.0 if self.zero_init else 1.0)

    def forward(self, pooled: Tensor) -> Tensor:
        gate = self.out(_bottleneck(pooled, self.g, self.layer_norm)).sigmoid()
        return 1 + self.alpha * (gate - 1)


def _bottleneck(pooled: Tensor, g: nn.Module, layer_norm: nn.LayerNorm) -> Tensor:
    return layer_norm(g(pooled).movedim(1, -1)).movedim(-1, 1).relu()


@MODELS.register_module()
class GlobalContext3d(_GlobalContext):
    """Global context (GC) block for video, (B, C, T, H, W) -> same shape.

    Source: Cao et al., "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and
    Beyond", 2019, where phi is the context mask and g and out are the transform.

    Args:
        in_channels (int): C, the channels of the features.
        reduction (int): The transform's bottleneck has ``C // reduction`` channels.
        axes (str): ``'spacetime'``: one context for all positions; ``'space'``: one for
            each frame; ``'time'``: one for each pixel.
        norm_cfg (dict, optional): A normalisation after ``out``, in mmcv's notation.
        zero_init (bool): Start as the identity.
        ratio (float, optional): The bottleneck's width over C, below or above 1;
            overrides ``reduction``.
        pooling_type (str): ``'att'``, the softmax pooling, or ``'avg'``, the mean.
        fusion_types (Sequence[str]): ``'channel_add'``, ``'channel_mul'`` or both:
            features are multiplied by the sigmoid of one transform, then another is
            added. The factor's distance from 1 is scaled by ``multiplier.alpha``, 1 as
            published and without ``zero_init``.
        positions (str, optional): ``'sine'`` tells the projections where a position
            lies along these axes; by default no order is known.

    Raises:
        ValueError: If an argument is out of its range.
    """

    dims = 3


@MODELS.register_module()
class GlobalContext2d(_GlobalContext):
    """Global context block for images, (B, C, H, W): see :class:`GlobalContext3d`."""

    dims = 2
