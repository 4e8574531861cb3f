"""Spectral non-local: a graph filter on a symmetric affinity of rank 2 C'.

Zhu, She, Li, Lu, Wang, Liu: "Unifying Nonlocal Blocks for Neural Networks", ICCV 2021,
https://arxiv.org/abs/2108.02451.
"""

from mmengine.registry import MODELS
from torch import Tensor

from polynl_mm.ops.spectral import spectral
from polynl_mm.plugins.base import Axes, check_whole
from polynl_mm.plugins.stacked_units import StackedUnits


class _SpectralNL(StackedUnits):
    _abbr_ = "spectral_nl"

    def __init__(
        self,
        in_channels: int,
        *,
        order: int = 1,
        stable: bool = False,
        num_units: int = 1,
        reduction: int = 2,
        axes: Axes = "spacetime",
        norm_cfg: dict | None = None,
        zero_init: bool = True,
    ) -> None:
        super().__init__(
            in_channels,
            num_units=num_units,
            terms=(order if isinstance(order, int) else 0) + 1,
            reduction=reduction,
            axes=axes,
            norm_cfg=norm_cfg,
            zero_init=zero_init,
        )
        check_whole(self, "order", order, 1, 16)
        self.order = order
        self.stable = stable

    def unit(self, theta: Tensor, phi: Tensor, g: Tensor, weight: Tensor) -> Tensor:
        """Return ``sum_k weight_k T_k(A) g``."""
        return spectral(theta, phi, g, weight, stable=self.stable)


@MODELS.register_module()
class SpectralNL3d(_SpectralNL):
    """Spectral non-local block (SNL, gSNL) for video, (B, C, T, H, W) -> same shape.

    Source: Zhu et al., "Unifying Nonlocal Blocks for Neural Networks", ICCV 2021; any
    order, and the scale ``alpha`` of each unit, are ours.

    Args:
        in_channels (int): C, the channels of the features.
        order (int): The Chebyshev filter's order, 1 to 16: 1 is SNL, 2 is gSNL.
        stable (bool): gSNL's assumption that A^2 = A, which makes its second term
            2A - I instead of 2A^2 - I.
        num_units (int): Stacked units that share one affinity.
        reduction (int): The projections have ``C // reduction`` channels.
        axes (str): ``'spacetime'``, ``'space'`` (each frame alone) or ``'time'``
            (each pixel alone).
        norm_cfg (dict, optional): The normalisation of each unit, in mmcv's notation;
            default BatchNorm.
        zero_init (bool): Start as the identity, ``alpha`` at zero.

    Raises:
        ValueError: If an argument is out of its range.
    """

    dims = 3


@MODELS.register_module()
class SpectralNL2d(_SpectralNL):
    """Spectral non-local block for images, (B, C, H, W): see :class:`SpectralNL3d`."""

    dims = 2
