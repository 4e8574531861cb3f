"""The control of every study: a block's weights and place, and no context at all."""

from mmengine.registry import MODELS
from torch import Tensor

from polynl_mm.plugins.residual import ResidualPlugin


class _Pointwise(ResidualPlugin):
    _abbr_ = "pointwise"

    def __init__(
        self,
        in_channels: int,
        *,
        norm_cfg: dict | None = None,
        zero_init: bool = True,
    ) -> None:
        super().__init__(
            in_channels,
            reduction=1,
            axes="spacetime",
            norm_cfg=norm_cfg,
            zero_init=zero_init,
        )
        self.reset_parameters()

    def context(self, x: Tensor) -> Tensor:
        """Return the features themselves: no position sees another."""
        return x


@MODELS.register_module()
class Pointwise3d(_Pointwise):
    """A residual 1x1x1 convolution, (B, C, T, H, W) -> same shape.

    What a network gains by it, it gains by weights; what a block gains over it, it
    gains by context.

    Args:
        in_channels (int): C, the channels of the features.
        norm_cfg (dict, optional): A normalisation after ``out``, in mmcv's notation.
        zero_init (bool): Start as the identity.
    """

    dims = 3


@MODELS.register_module()
class Pointwise2d(_Pointwise):
    """A residual 1x1 convolution, (B, C, H, W) -> same shape: see Pointwise3d."""

    dims = 2
