"""Units of one block that share an affinity: z_(u+1) = z_u + alpha_u ReLU(BN(...)).

The papers of the spectral block and of the non-local stage rectify what they add. A
norm that starts at zero would never leave it behind a ReLU, whose gradient at zero is
zero; so each unit has a scale, ``alpha``, that starts at zero instead.
"""

import torch
import torch.nn as nn
from torch import Tensor

from polynl_mm.ops.half_products import add_scaled
from polynl_mm.ops.summaries import holder
from polynl_mm.plugins.base import (
    Axes,
    Plugin,
    build_norm,
    check_whole,
    groups_as_samples,
    samples_as_groups,
)
from polynl_mm.plugins.position_encoding import Positions
from polynl_mm.plugins.readable_layers import are_readable
from polynl_mm.plugins.residual import CONVOLUTIONS
from polynl_mm.plugins.shared_norms import normalise


class StackedUnits(Plugin):
    """A plugin of units that share theta and phi, and so the affinity.

    A subclass implements :meth:`unit`.

    Args:
        in_channels (int): C, at least 1.
        num_units (int): The units, at least 1.
        terms (int): The output projections of each unit.
        reduction (int): The projections have ``C // reduction`` channels.
        axes (str): As in :class:`Plugin`.
        norm_cfg (dict, optional): The normalisation after each unit; default a
            BatchNorm of the plugin's dimension.
        zero_init (bool): Start as the identity.
        relu (bool): Rectify what each unit adds.
        masked (bool): Give each unit a ``mask``, one logit a position.
        positions (str, optional): As in :class:`Plugin`.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        num_units: int,
        terms: int,
        reduction: int,
        axes: Axes,
        norm_cfg: dict | None,
        zero_init: bool,
        relu: bool = True,
        masked: bool = False,
        positions: Positions | None = None,
    ) -> None:
        super().__init__(in_channels, axes=axes, positions=positions)
        check_whole(self, "reduction", reduction, 1, in_channels)
        check_whole(self, "num_units", num_units, 1, 64)
        self.num_units = num_units
        self.zero_init = zero_init
        self.relu = relu
        conv, inner = CONVOLUTIONS[self.dims], in_channels // reduction
        norm_cfg = norm_cfg or dict(type=f"BN{self.dims}d")

        def repeat(make) -> nn.ModuleList:
            return nn.ModuleList(make() for _ in range(num_units))

        self.theta = conv(in_channels, inner, 1, bias=False)
        self.phi = conv(in_channels, inner, 1, bias=False)
        self.g = repeat(lambda: conv(in_channels, inner, 1, bias=False))
        self.out = repeat(
            lambda: nn.ModuleList(
                conv(inner, in_channels, 1, bias=False) for _ in range(terms)
            )
        )
        self.norm = repeat(lambda: build_norm(self, norm_cfg, in_channels)[1])
        self.mask = (
            repeat(lambda: conv(in_channels, 1, 1, bias=False)) if masked else None
        )
        self.alpha = nn.Parameter(torch.empty(num_units))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the weights as at construction: the identity where ``zero_init``."""
        for layer in self.modules():
            if layer is not self and hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
        nn.init.constant_(self.alpha, 0.0 if self.zero_init else 1.0)

    def unit(
        self,
        theta: Tensor,
        phi: Tensor,
        g: Tensor,
        weight: Tensor,
        logits: Tensor | None,
    ) -> Tensor:
        """Return what a unit adds, before its norm.

        Args:
            theta (Tensor): (B, K, N).
            phi (Tensor): (B, K, N).
            g (Tensor): The unit's signal, (B, K, N).
            weight (Tensor): The unit's output projections, (terms, C, K).
            logits (Tensor, optional): The unit's mask, (B, 1, N), where it has one.

        Returns:
            Tensor: (B, C, N).
        """
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Apply the units, one after the other, with the affinity of ``x``.

        Args:
            x (Tensor): Features, (B, C, *positions).

        Returns:
            Tensor: Features of the same shape and type.

        Raises:
            ValueError: If the shape is not the one this plugin was built for.
        """
        self.check_input(x)
        read = self.placed(x)
        theta, phi = (
            groups_as_samples(projection(read), self.axes)
            for projection in (self.theta, self.phi)
        )
        masks = self.mask or [None] * self.num_units
        units = zip(self.g, self.out, self.norm, self.alpha, masks, strict=True)
        for g, out, norm, alpha, mask in units:
            logits = None if mask is None else groups_as_samples(mask(read), self.axes)
            signal = groups_as_samples(g(read), self.axes)
            operands = (x, theta, phi, signal, logits)
            if are_readable(*out):
                weights = torch.stack([term.weight.flatten(1) for term in out])
                y = self._filtered(*operands, weights)
            else:
                chosen = _each_term(len(out), signal)
                y = sum(
                    term(self._filtered(*operands, one))
                    for term, one in zip(out, chosen, strict=True)
                )
            y = normalise(norm, y, holder())
            y = y.relu() if self.relu else y
            x = add_scaled(x, y.to(x.dtype), alpha)
            read = self.placed(x)
        return x

    def _filtered(
        self,
        x: Tensor,
        theta: Tensor,
        phi: Tensor,
        g: Tensor,
        logits: Tensor | None,
        weight: Tensor,
    ) -> Tensor:
        """Return :meth:`unit` laid out as ``x`` is, (B, *, *positions)."""
        y = self.unit(theta, phi, g, weight, logits)
        return samples_as_groups(y, self.axes, x.shape[0], x.shape[2:])


def _each_term(count: int, signal: Tensor) -> Tensor:
    """Return what to project with so that one term is left, as it is.

    Args:
        count (int): The terms.
        signal (Tensor): (B, K, N).

    Returns:
        Tensor: (count, count, K, K): by term, a projection of each.
    """
    chosen = torch.eye(count).to(signal)
    kept = torch.eye(signal.shape[1]).to(signal)
    return chosen[:, :, None, None] * kept
