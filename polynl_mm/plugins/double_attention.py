"""Double attention: gather global features, then distribute them.

Chen, Kalantidis, Li, Yan, Feng: "A^2-Nets: Double Attention Networks", NeurIPS 2018,
https://arxiv.org/abs/1810.11579.
"""

from mmengine.registry import MODELS
from torch import Tensor

from polynl_mm.ops.factored import double_attention
from polynl_mm.plugins.base import (
    Axes,
    groups_as_samples,
    samples_as_groups,
)
from polynl_mm.plugins.position_encoding import Positions
from polynl_mm.plugins.residual import KeyValuePlugin


class _DoubleAttention(KeyValuePlugin):
    _abbr_ = "double_attention"

    def __init__(
        self,
        in_channels: int,
        *,
        reduction: int = 4,
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
        self.reset_parameters()

    def context(self, x: Tensor) -> Tensor:
        """Return ``g softmax_positions(phi)^T softmax_channels(theta)``."""
        projected = (self.theta(x), self.phi(x), self.g(x))
        query, *keys = (groups_as_samples(p, self.axes) for p in projected)
        y = double_attention(query, *self.seen(*keys), others=self.others_of_keys())
        return samples_as_groups(y, self.axes, x.shape[0], x.shape[2:])


@MODELS.register_module()
class DoubleAttention3d(_DoubleAttention):
    """Double attention (A2 block) for video, (B, C, T, H, W) -> same shape.

    Source: Chen et al., "A^2-Nets: Double Attention Networks", NeurIPS 2018, where
    theta is V, phi is B and g is A.

    Args:
        in_channels (int): C, the channels of the features.
        reduction (int): The features gathered, and the maps that gather them, have
            ``C // reduction`` channels.
        axes (str): ``'spacetime'``, ``'space'`` (each frame alone) or ``'time'``
            (each pixel alone).
        norm_cfg (dict, optional): A normalisation after ``out``, in mmcv's notation.
        zero_init (bool): Start as the identity.
        key_channels (int, optional): The number of maps, c_n; overrides ``reduction``
            for them.
        value_channels (int, optional): The width of the features gathered, c_m;
            overrides ``reduction`` for them.
        positions (str, optional): ``'sine'`` tells the projections where a position
            lies along these axes; by default no order is known.

    Raises:
        ValueError: If an argument is out of its range.
    """

    dims = 3


@MODELS.register_module()
class DoubleAttention2d(_DoubleAttention):
    """Double attention for images, (B, C, H, W): see :class:`DoubleAttention3d`."""

    dims = 2
