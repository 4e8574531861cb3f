"""Recurrent criss-cross attention, over rows and columns, and over time in 3d.

Huang, Wang, Huang, Huang, Wei, Liu: "CCNet: Criss-Cross Attention for Semantic
Segmentation", ICCV 2019, https://arxiv.org/abs/1811.11721.
"""

import torch
import torch.nn as nn
from mmengine.registry import MODELS
from torch import Tensor

from polynl_mm.ops.criss_cross import criss_cross
from polynl_mm.ops.half_products import add_scaled
from polynl_mm.plugins.base import (
    Axes,
    Plugin,
    check_whole,
    group_shape,
    groups_as_samples,
    samples_as_groups,
)
from polynl_mm.plugins.position_encoding import Positions
from polynl_mm.plugins.residual import CONVOLUTIONS


class _CrissCross(Plugin):
    _abbr_ = "criss_cross"

    def __init__(
        self,
        in_channels: int,
        *,
        reduction: int = 8,
        recurrence: int | None = None,
        axes: Axes = "spacetime",
        zero_init: bool = True,
        positions: Positions | None = None,
    ) -> None:
        super().__init__(in_channels, axes=axes, positions=positions)
        check_whole(self, "reduction", reduction, 1, max(in_channels, 8))
        crossing = len(group_shape((0,) * self.dims, axes))
        recurrence = crossing if recurrence is None else recurrence
        check_whole(self, "recurrence", recurrence, 1, 16)
        self.recurrence = recurrence
        self.zero_init = zero_init
        conv, inner = CONVOLUTIONS[self.dims], max(in_channels // reduction, 1)
        self.theta = conv(in_channels, inner, 1)
        self.phi = conv(in_channels, inner, 1)
        self.g = conv(in_channels, in_channels, 1)
        self.gamma = nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the weights as at construction: the identity where ``zero_init``."""
        for child in self.children():
            child.reset_parameters()
        nn.init.constant_(self.gamma, 0.0 if self.zero_init else 1.0)

    def forward(self, x: Tensor) -> Tensor:
        """Apply ``x + gamma * criss_cross(x)`` as often as ``recurrence`` says.

        Args:
            x (Tensor): Features, (B, C, *positions).

        Returns:
            Tensor: Features of the same shape and type.

        Raises:
            ValueError: If the shape is not the one this plugin was built for.
        """
        self.check_input(x)
        shape = group_shape(tuple(x.shape[2:]), self.axes)
        for _ in range(self.recurrence):
            read = self.placed(x)
            projected = (self.theta(read), self.phi(read), self.g(read))
            samples = (groups_as_samples(p, self.axes) for p in projected)
            y = criss_cross(*samples, shape, others=self.others)
            y = samples_as_groups(y, self.axes, x.shape[0], x.shape[2:])
            x = add_scaled(x, y.to(x.dtype), self.gamma)
        return x


@MODELS.register_module()
class CrissCross3d(_CrissCross):
    """Recurrent criss-cross attention (RCCA) for video, (B, C, T, H, W).

    Source: Huang et al., "CCNet: Criss-Cross Attention for Semantic Segmentation",
    ICCV 2019; over three axes also Cao et al., "Efficient spatiotemporal context
    modeling for action recognition" (RCCA-3D), Neurocomputing 2023.

    Args:
        in_channels (int): C, the channels of the features.
        reduction (int): Queries and keys have ``C // reduction`` channels, at least 1.
        recurrence (int, optional): How often the block is applied, with the same
            weights; by default as often as there are axes, after which every position
            has seen every other.
        axes (str): ``'spacetime'``: T, H and W cross; ``'space'``: H and W of each
            frame; ``'time'``: T alone, each pixel for itself.
        zero_init (bool): Start as the identity, ``gamma`` at zero.
        positions (str, optional): ``'sine'`` tells the projections where a position
            lies along these axes; by default no order is known.

    Raises:
        ValueError: If an argument is out of its range.
    """

    dims = 3


@MODELS.register_module()
class CrissCross2d(_CrissCross):
    """Recurrent criss-cross attention for images, (B, C, H, W): see CrissCross3d."""

    dims = 2
