"""Spectral non-local: a graph filter on an affinity, symmetric or not.

Zhu, She, Li, Lu, Wang, Liu: "Unifying Nonlocal Blocks for Neural Networks", ICCV 2021,
https://arxiv.org/abs/2108.02451. Its symmetric affinity has rank 2 C', which makes
every order linear in the positions. The row softmax is that of the authors' code of
2019, and of the disentangled non-local block (DNL): Yin, Yao, Cao, Li, Zhang, Lin, Hu,
ECCV 2020, https://arxiv.org/abs/2006.06668.
"""

import math

from mmengine.registry import MODELS
from torch import Tensor

from polynl_mm.ops.products import project
from polynl_mm.ops.spectral import disentangled, spectral, spectral_softmax, whiten
from polynl_mm.plugins.base import Axes, check_whole, is_whole
from polynl_mm.plugins.position_encoding import Positions
from polynl_mm.plugins.stacked_units import StackedUnits

AFFINITIES = ("symmetric", "softmax", "whitened")


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
        affinity: str = "symmetric",
        use_scale: bool = False,
        temperature: float = 1.0,
        disentangled: bool = False,
        relu: bool = True,
        positions: Positions | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            num_units=num_units,
            terms=1 if disentangled else (order if is_whole(order, 0) else 0) + 1,
            reduction=reduction,
            axes=axes,
            norm_cfg=norm_cfg,
            zero_init=zero_init,
            relu=relu,
            masked=disentangled,
            positions=positions,
        )
        check_whole(self, "order", order, 1, 16)
        name = type(self).__name__
        if affinity not in AFFINITIES:
            raise ValueError(
                f"{name}: affinity is one of {AFFINITIES}, not {affinity!r}."
            )
        number = isinstance(temperature, int | float)
        if not (number and 0 < temperature < math.inf):
            raise ValueError(
                f"{name}: temperature is a number above 0, not {temperature!r}."
            )
        needs_softmax = dict(
            use_scale=use_scale, temperature=temperature != 1, disentangled=disentangled
        )
        if affinity == "symmetric" and any(needs_softmax.values()):
            option = next(key for key, given in needs_softmax.items() if given)
            raise ValueError(
                f"{name}: {option} belongs to a softmax, which affinity='symmetric' "
                "does not take; set affinity='softmax' or 'whitened'."
            )
        if disentangled and (order > 1 or stable):
            raise ValueError(
                f"{name}: disentangled=True has one term, the affinity's own; leave "
                f"order at 1 and stable at False, not order={order}, stable={stable}."
            )
        self.order = order
        self.stable = stable
        self.affinity = affinity
        self.use_scale = use_scale
        self.temperature = temperature

    def unit(
        self,
        theta: Tensor,
        phi: Tensor,
        g: Tensor,
        weight: Tensor,
        logits: Tensor | None,
    ) -> Tensor:
        """Return ``sum_k weight_k T_k(A) g``, or ``weight (A g + mean by logits)``."""
        if self.affinity == "symmetric":
            return spectral(
                theta, phi, g, weight, stable=self.stable, others=self.others
            )
        if self.affinity == "whitened":
            theta, phi = (whiten(t, self.others) for t in (theta, phi))
        if self.temperature != 1:
            theta = theta / self.temperature
        options = dict(scale=self.use_scale, others=self.others)
        if logits is not None:
            y = disentangled(theta, phi, g, logits, **options)
            return project(weight[0], y)
        return spectral_softmax(theta, phi, g, weight, stable=self.stable, **options)


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
        affinity (str): ``'symmetric'``, that of ICCV 2021; ``'softmax'``, the row
            softmax of theta^T phi, at the cost of the non-local block; ``'whitened'``,
            the same once theta and phi have lost their means over the positions.
        use_scale (bool): Divide the similarities by the root of the inner width.
        temperature (float): Divide them by this, too.
        disentangled (bool): DNL: one term only, to which is added the average of ``g``
            by a softmax that is the same for every position, of one logit each. Its
            paper whitens the affinity.
        relu (bool): Rectify what each unit adds.
        positions (str, optional): ``'sine'`` tells the projections where a position
            lies along these axes; by default no order is known.

    Raises:
        ValueError: If an argument is out of its range.
    """

    dims = 3


@MODELS.register_module()
class SpectralNL2d(_SpectralNL):
    """Spectral non-local block for images, (B, C, H, W): see :class:`SpectralNL3d`."""

    dims = 2
