"""Non-local stage: stacked diffusion units that share one softmax affinity.

Tao, Sun, Du, Liu: "Nonlocal Neural Networks, Nonlocal Diffusion and Nonlocal Modeling",
NeurIPS 2018, https://arxiv.org/abs/1806.00681.
"""

from mmengine.registry import MODELS
from torch import Tensor

from polynl_mm.ops.pairwise import non_local_stage
from polynl_mm.ops.products import project
from polynl_mm.plugins.base import Axes
from polynl_mm.plugins.position_encoding import Positions
from polynl_mm.plugins.stacked_units import StackedUnits


class _NonLocalStage(StackedUnits):
    _abbr_ = "non_local_stage"

    def __init__(
        self,
        in_channels: int,
        *,
        num_units: int = 1,
        use_scale: bool = False,
        reduction: int = 2,
        axes: Axes = "spacetime",
        norm_cfg: dict | None = None,
        zero_init: bool = True,
        positions: Positions | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            num_units=num_units,
            terms=1,
            reduction=reduction,
            axes=axes,
            norm_cfg=norm_cfg,
            zero_init=zero_init,
            positions=positions,
        )
        self.use_scale = use_scale

    def unit(
        self, theta: Tensor, phi: Tensor, g: Tensor, weight: Tensor, logits: None
    ) -> Tensor:
        """Return ``weight (g - A g)``."""
        y = non_local_stage(theta, phi, g, scale=self.use_scale, others=self.others)
        return project(weight[0], y)


@MODELS.register_module()
class NonLocalStage3d(_NonLocalStage):
    """Non-local stage (NS) for video, (B, C, T, H, W) -> same shape.

    Source: Tao et al., "Nonlocal Neural Networks, Nonlocal Diffusion and Nonlocal
    Modeling", NeurIPS 2018; the scale ``alpha`` of each unit is ours.

    Args:
        in_channels (int): C, the channels of the features.
        num_units (int): Stacked units that share one affinity.
        use_scale (bool): Divide the similarities by the root of the inner width.
        reduction (int): The projections have ``C // reduction`` channels.
        axes (str): ``'spacetime'``, ``'space'`` (each frame alone) or ``'time'``
            (each pixel alone).
        norm_cfg (dict, optional): The normalisation of each unit, in mmcv's notation;
            default BatchNorm.
        zero_init (bool): Start as the identity, ``alpha`` at zero.
        positions (str, optional): ``'sine'`` tells the projections where a position
            lies along these axes; by default no order is known.

    Raises:
        ValueError: If an argument is out of its range.
    """

    dims = 3


@MODELS.register_module()
class NonLocalStage2d(_NonLocalStage):
    """Non-local stage for images, (B, C, H, W): see :class:`NonLocalStage3d`."""

    dims = 2
