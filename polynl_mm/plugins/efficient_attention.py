"""Efficient attention: a softmax over channels times one over positions.

Shen, Zhang, Zhao, Yi, Li: "Efficient Attention: Attention with Linear Complexities",
WACV 2021, https://arxiv.org/abs/1812.01243.
"""

from mmengine.registry import MODELS
from torch import Tensor

from polynl_mm.ops.factored import efficient_attention
from polynl_mm.plugins.base import (
    Axes,
    check_whole,
    groups_as_samples,
    samples_as_groups,
)
from polynl_mm.plugins.position_encoding import Positions
from polynl_mm.plugins.residual import KeyValuePlugin


class _EfficientAttention(KeyValuePlugin):
    _abbr_ = "efficient_attention"

    def __init__(
        self,
        in_channels: int,
        *,
        reduction: int = 2,
        heads: int = 1,
        axes: Axes = "spacetime",
        norm_cfg: dict | None = None,
        zero_init: bool = True,
        key_channels: int | None = None,
        value_channels: int | None = None,
        positions: Positions | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            reduction=reduction,
            axes=axes,
            norm_cfg=norm_cfg,
            zero_init=zero_init,
            key_channels=key_channels,
            value_channels=value_channels,
            positions=positions,
        )
        check_whole(self, "heads", heads, 1, self.key_channels)
        for width in (self.key_channels, self.inner_channels):
            if width % heads:
                raise ValueError(
                    f"{type(self).__name__}: heads={heads} does not divide the "
                    f"{width} inner channels (in_channels={in_channels} // "
                    f"reduction={reduction}, key_channels={key_channels}, "
                    f"value_channels={value_channels}) into equal parts."
                )
        self.heads = heads
        self.reset_parameters()

    def context(self, x: Tensor) -> Tensor:
        """Return ``g softmax_positions(phi)^T softmax_channels(theta)``, by head."""
        projected = (self.theta(x), self.phi(x), self.g(x))
        query, *keys = (groups_as_samples(p, self.axes) for p in projected)
        y = efficient_attention(
            query, *self.seen(*keys), heads=self.heads, others=self.others_of_keys()
        )
        return samples_as_groups(y, self.axes, x.shape[0], x.shape[2:])


@MODELS.register_module()
class EfficientAttention3d(_EfficientAttention):
    """Efficient attention for video, (B, C, T, H, W) -> same shape.

    Source: Shen et al., "Efficient Attention: Attention with Linear Complexities",
    WACV 2021.

    Args:
        in_channels (int): C, the channels of the features.
        reduction (int): Queries, keys and values have ``C // reduction`` channels.
        heads (int): Equal parts of these channels, each attending alone.
        axes (str): ``'spacetime'``, ``'space'`` (each frame alone) or ``'time'``
            (each pixel alone).
        norm_cfg (dict, optional): A normalisation after ``out``, in mmcv's notation.
        zero_init (bool): Start as the identity.
        key_channels (int, optional): The width of queries and keys; overrides
            ``reduction`` for them.
        value_channels (int, optional): The width of values; overrides ``reduction``
            for them.
        positions (str, optional): ``'sine'`` tells the projections where a position
            lies along these axes; by default no order is known.

    Raises:
        ValueError: If an argument is out of its range.
    """

    dims = 3


@MODELS.register_module()
class EfficientAttention2d(_EfficientAttention):
    """Efficient attention for images, (B, C, H, W): see EfficientAttention3d."""

    dims = 2
