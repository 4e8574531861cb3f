"""The frame most of the family shares: x + norm(out(context(x)))."""

import torch.nn as nn
from torch import Tensor

from polynl_mm.ops.summaries import holder
from polynl_mm.plugins.base import Axes, Plugin, build_norm, inner_width
from polynl_mm.plugins.position_encoding import Positions
from polynl_mm.plugins.shared_norms import normalise

CONVOLUTIONS = {2: nn.Conv2d, 3: nn.Conv3d}


class ResidualPlugin(Plugin):
    """A plugin that projects a context and adds it to the features.

    A subclass makes its own projections and implements :meth:`context`.

    Args:
        in_channels (int): C, at least 1.
        reduction (int): The context has ``C // reduction`` channels, from 1 to C.
        axes (str): As in :class:`Plugin`.
        norm_cfg (dict, optional): A normalisation after ``out``, in mmcv's notation.
        zero_init (bool): Start as the identity.
        inner_channels (int, optional): The width of the context; overrides
            ``reduction``.
        positions (str, optional): As in :class:`Plugin`.
    """

    # What a subclass calls inner_channels.
    width_argument = "inner_channels"

    def __init__(
        self,
        in_channels: int,
        *,
        reduction: int,
        axes: Axes,
        norm_cfg: dict | None,
        zero_init: bool,
        inner_channels: int | None = None,
        positions: Positions | None = None,
    ) -> None:
        super().__init__(in_channels, axes=axes, positions=positions)
        self.inner_channels = inner_width(
            self, reduction, inner_channels, self.width_argument
        )
        self.zero_init = zero_init
        self.out = self.projection(self.inner_channels, in_channels, bias=not norm_cfg)
        self.norm = build_norm(self, norm_cfg, in_channels)[1] if norm_cfg else None

    def projection(
        self, in_channels: int, out_channels: int, bias: bool = True
    ) -> nn.Module:
        """Return a 1x1 convolution of this plugin's dimension."""
        return CONVOLUTIONS[self.dims](in_channels, out_channels, 1, bias=bias)

    def reset_parameters(self) -> None:
        """Set the weights as at construction: the identity where ``zero_init``."""
        for child in self.children():
            child.reset_parameters()
        if self.zero_init:
            last = self.out if self.norm is None else self.norm
            nn.init.zeros_(last.weight)
            if last.bias is not None:
                nn.init.zeros_(last.bias)

    def context(self, x: Tensor) -> Tensor:
        """Return what is projected and added.

        Args:
            x (Tensor): Features, (B, C, *positions).

        Returns:
            Tensor: (B, inner_channels, *positions), or of size 1 in positions.
        """
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x + norm(out(context(x)))``, where the context reads the placed x.

        Args:
            x (Tensor): Features, (B, C, *positions).

        Returns:
            Tensor: Features of the same shape and type.

        Raises:
            ValueError: If the shape is not the one this plugin was built for.
        """
        self.check_input(x)
        y = self.out(self.context(self.placed(x)))
        if self.norm is not None:
            y = normalise(self.norm, y, holder())
        return x + y.to(x.dtype)


class KeyValuePlugin(ResidualPlugin):
    """A residual plugin of queries and keys of one width, and values of another.

    Args:
        in_channels (int): C, at least 1.
        reduction (int): Either width is ``C // reduction`` where it is not given.
        key_channels (int, optional): The width of ``theta`` and ``phi``.
        value_channels (int, optional): The width of ``g`` and of the context.
        **options: As in :class:`ResidualPlugin`.
    """

    width_argument = "value_channels"

    def __init__(
        self,
        in_channels: int,
        *,
        reduction: int,
        key_channels: int | None,
        value_channels: int | None,
        **options,
    ) -> None:
        super().__init__(
            in_channels, reduction=reduction, inner_channels=value_channels, **options
        )
        width = inner_width(self, reduction, key_channels, "key_channels")
        self.key_channels = width
        self.theta = self.projection(in_channels, width)
        self.phi = self.projection(in_channels, width)
        self.g = self.projection(in_channels, self.inner_channels)
