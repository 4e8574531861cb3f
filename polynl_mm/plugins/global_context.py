"""Global context: one softmax pooling, the same for every query, and a bottleneck.

Cao, Xu, Lin, Wei, Hu: "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and
Beyond", 2019, https://arxiv.org/abs/1904.11492.
"""

import torch.nn as nn
from mmengine.registry import MODELS
from torch import Tensor

from polynl_mm.ops.factored import global_context
from polynl_mm.plugins.base import Axes, groups_as_samples
from polynl_mm.plugins.residual import ResidualPlugin


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
    ) -> None:
        super().__init__(
            in_channels,
            reduction=reduction,
            axes=axes,
            norm_cfg=norm_cfg,
            zero_init=zero_init,
        )
        inner = self.inner_channels
        self.phi = self.projection(in_channels, 1)
        self.g = self.projection(in_channels, inner)
        self.layer_norm = nn.LayerNorm(inner)
        self.reset_parameters()

    def context(self, x: Tensor) -> Tensor:
        """Return ``ReLU(LN(g sum_j softmax_j(phi x_j) x_j))``, one for each group.

        Args:
            x (Tensor): Features, (B, C, *positions).

        Returns:
            Tensor: (B, inner, *positions), of size 1 along the axes looked over.
        """
        logits = groups_as_samples(self.phi(x), self.axes)
        pooled = global_context(logits, groups_as_samples(x, self.axes))
        pooled = pooled.unflatten(0, (x.shape[0], -1)).squeeze(3).mT  # (B, C, G)
        g = self.g(pooled.reshape(*pooled.shape[:2], *self._context_positions(x)))
        return self.layer_norm(g.movedim(1, -1)).movedim(-1, 1).relu()

    def _context_positions(self, x: Tensor) -> tuple[int, ...]:
        looked_over = {
            "spacetime": range(self.dims),
            "space": range(self.dims - 2, self.dims),
            "time": range(self.dims - 2),
        }[self.axes]
        sizes = enumerate(x.shape[2:])
        return tuple(1 if axis in looked_over else size for axis, size in sizes)


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

    Raises:
        ValueError: If an argument is out of its range.
    """

    dims = 3


@MODELS.register_module()
class GlobalContext2d(_GlobalContext):
    """Global context block for images, (B, C, H, W): see :class:`GlobalContext3d`."""

    dims = 2
