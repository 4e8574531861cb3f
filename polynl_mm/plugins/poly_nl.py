"""Poly-NL: global context as a third-order polynomial, at linear cost.

Babiloni, Marras, Kokkinos, Deng, Chrysos, Zafeiriou: "Poly-NL: Linear Complexity
Non-local Layers with 3rd Order Polynomials", ICCV 2021,
https://arxiv.org/abs/2107.02859. The form is that of DESIGN: the kernel is the mean
over positions, as two later papers describe it. The heads are those of Poly-SA, from
the same authors' "Linear Complexity Self-Attention with 3rd Order Polynomials", TPAMI
2023, known here by a third party's code: its weights p1 and p2, learned for each of a
fixed number of positions, are 1 and 1/N here.
"""

import torch
import torch.nn as nn
from mmengine.registry import MODELS
from torch import Tensor
from torch.nn.functional import layer_norm

from polynl_mm.ops.half_products import (
    add_scaled,
    mean_of_products,
    scale_positions,
)
from polynl_mm.ops.own_functions import is_forward_mode
from polynl_mm.ops.poly import SCHEDULES, Schedule, poly_nl
from polynl_mm.ops.precision import cast
from polynl_mm.ops.summaries import holder, mean_of_all
from polynl_mm.plugins.base import (
    Axes,
    Plugin,
    build_norm,
    check_whole,
    is_whole,
    join_groups,
    split_groups,
)
from polynl_mm.plugins.position_encoding import Positions
from polynl_mm.plugins.readable_layers import are_readable
from polynl_mm.plugins.shared_norms import normalise


class _PolyNL(Plugin):
    _abbr_ = "poly_nl"
    _conv: type[nn.Module]

    def __init__(
        self,
        in_channels: int,
        *,
        reduction: int = 1,
        axes: Axes = "spacetime",
        norm_cfg: dict | None = None,
        zero_init: bool = True,
        schedule: Schedule = "auto",
        bias: bool = False,
        with_g: bool | None = None,
        heads: int | None = None,
        positions: Positions | None = None,
    ) -> None:
        super().__init__(in_channels, axes=axes, positions=positions)
        name = type(self).__name__
        if not is_whole(reduction, 1, in_channels):
            raise ValueError(
                f"{name}: reduction is a whole number from 1 to in_channels="
                f"{in_channels}, not {reduction!r}."
            )
        if schedule not in SCHEDULES:
            raise ValueError(
                f"{name}: schedule is one of {SCHEDULES}, not {schedule!r}."
            )
        self.reduction = reduction
        self.zero_init = zero_init
        self.schedule = schedule
        inner = in_channels // reduction
        if with_g is False and inner != in_channels:
            raise ValueError(
                f"{name}: with_g=False gates the {in_channels} channels themselves, "
                f"but reduction={reduction} leaves {inner}; set reduction=1."
            )
        with_g = reduction > 1 if with_g is None else with_g
        self.heads = heads
        self.theta = self._conv(in_channels, inner, 1, bias=bias)
        self.phi = self._conv(in_channels, inner, 1, bias=bias)
        self.g = self._conv(in_channels, inner, 1, bias=bias) if with_g else None
        self.out = self._conv(inner, in_channels, 1, bias=bias and not norm_cfg)
        self.moment_norm = self._build_moment_norm(inner)
        self.norm = build_norm(self, norm_cfg, in_channels)[1] if norm_cfg else None
        self.alpha = nn.Parameter(torch.empty(1))
        self.beta = nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def _build_moment_norm(self, inner: int) -> nn.LayerNorm | None:
        if self.heads is None:
            return None
        name = type(self).__name__
        check_whole(self, "heads", self.heads, 1, inner)
        # Of a single channel a LayerNorm leaves nothing but its bias.
        if inner % self.heads or inner == self.heads:
            raise ValueError(
                f"{name}: heads={self.heads} does not divide the {inner} inner "
                "channels into equal parts of two or more."
            )
        return nn.LayerNorm(inner // self.heads)

    def reset_parameters(self) -> None:
        """Set the weights as at construction: the identity where ``zero_init``."""
        for child in self.children():
            if hasattr(child, "reset_parameters"):  # an activation-like norm has none
                child.reset_parameters()
        nn.init.constant_(self.alpha, 0.0 if self.zero_init else 1.0)
        nn.init.ones_(self.beta)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``alpha * norm(out(moment * g x)) + beta * x``.

        Args:
            x (Tensor): Features, (B, C, *positions).

        Returns:
            Tensor: Features of the same shape and type.

        Raises:
            ValueError: If the shape is not the one this plugin was built for.
        """
        self.check_input(x)
        if not are_readable(*self.projections, self.moment_norm):
            return self._weigh(self.by_layers(self.placed(x)), x)
        # What is read is what is passed on, unless positions are added to it.
        fused = self.norm is None and self.positions is None
        # Behind a norm the scale would have no effect: there it follows.
        alpha = self.alpha if self.norm is None else None
        *biases, of_out, of_g = self.biases
        if of_out is not None and alpha is not None:
            of_out = of_out * alpha
        y = poly_nl(
            split_groups(self.placed(x), self.axes),  # (B, C, G, N)
            self.theta.weight.flatten(1),
            self.phi.weight.flatten(1),
            self.out.weight.flatten(1),
            None if self.g is None else self.g.weight.flatten(1),
            residual=self.beta if fused else None,
            schedule=self.schedule,
            biases=(*biases, of_out, of_g),
            moment_norm=None if self.moment_norm is None else self.normalise_heads,
            alpha=alpha,
            others=self.others,
        )
        y = join_groups(y, self.axes, x.shape[2:])
        if fused:
            return y
        return add_scaled(y, x, self.beta) if alpha is not None else self._weigh(y, x)

    def _weigh(self, y: Tensor, x: Tensor) -> Tensor:
        """Return ``alpha * norm(y) + beta * x``."""
        if self.norm is not None:
            y = normalise(self.norm, y, holder())
        return add_scaled(add_scaled(None, y, self.alpha), x, self.beta)

    def by_layers(self, x: Tensor) -> Tensor:
        """Return ``out(moment * g x)``, each layer called.

        Args:
            x (Tensor): What the projections read, (B, C, *positions).

        Returns:
            Tensor: (B, C, *positions).
        """
        value = x if self.g is None else self.g(x)
        theta, phi, value = (
            split_groups(y, self.axes) for y in (self.theta(x), self.phi(x), value)
        )
        moment = mean_of_products(theta, phi)  # (B, K, G)
        if self.others is not None:
            moment = mean_of_all(self.others, moment, theta.shape[3])
        if self.moment_norm is not None:
            moment = self.normalise_heads(moment.mT).mT
        gated = scale_positions(value, moment)
        return self.out(join_groups(gated, self.axes, x.shape[2:]))

    @property
    def biases(self) -> tuple[Tensor | None, ...]:
        """Biases of theta, phi, out and g, None where there is none."""
        return tuple(None if p is None else p.bias for p in self.projections)

    @property
    def projections(self) -> tuple[nn.Module | None, ...]:
        """Layers theta, phi, out and g, None where there is none."""
        return self.theta, self.phi, self.out, self.g

    def normalise_heads(self, moment: Tensor) -> Tensor:
        """Normalise the moment within each head: (..., K) -> same shape."""
        norm = self.moment_norm
        parts = moment.unflatten(-1, (self.heads, -1))
        if are_readable(norm):
            weight, bias = cast(moment.dtype, norm.weight, norm.bias)
            if is_forward_mode(parts):  # gradients of torch's own tangents are wrong
                mean = parts.mean(-1, keepdim=True)
                spread = parts.var(-1, keepdim=True, correction=0) + norm.eps
                parts = (parts - mean) * spread.rsqrt() * weight + bias
            else:
                shape = norm.normalized_shape
                parts = layer_norm(parts, shape, weight, bias, norm.eps)
        else:
            parts = norm(parts.to(norm.weight.dtype)).to(moment.dtype)
        return parts.flatten(-2)

    def extra_repr(self) -> str:
        """Return what ``print(model)`` shows beside the layers."""
        return (
            f"{self.in_channels}, reduction={self.reduction}, axes={self.axes!r}, "
            f"schedule={self.schedule!r}"
        )


@MODELS.register_module()
class PolyNL3d(_PolyNL):
    """Poly-NL for video, (B, C, T, H, W) -> same shape.

    Starts as the identity, so it can be put into a pretrained network. Source: Babiloni
    et al., "Poly-NL: Linear Complexity Non-local Layers with 3rd Order Polynomials",
    ICCV 2021.

    Args:
        in_channels (int): C, the channels of the features.
        reduction (int): The inner projections have ``C // reduction`` channels. 1, the
            paper's form, has no projection ``g``.
        axes (str): ``'spacetime'``: each position is gated by the moment over all of
            them; ``'space'``: over its own frame; ``'time'`` (3d): over its own pixel.
        norm_cfg (dict, optional): A normalisation after ``out``, in mmcv's notation.
        zero_init (bool): Start as the identity (``alpha`` at 0) or not (1).
        schedule (str): ``'direct'``, ``'gram'`` or ``'auto'``, the cheaper one by
            :func:`polynl_mm.ops.poly.count_operations`. The result is the same.
        bias (bool): Give theta, phi, g and, where no norm follows, out a bias.
        with_g (bool, optional): Project the gated features, by default where
            ``reduction`` is above 1. True at ``reduction=1`` is a ``g`` of full width.
        heads (int, optional): Normalise the moment (LayerNorm, one for all heads)
            within each of so many equal parts of the inner channels, as Poly-SA does.
            Without that, heads are no option: each channel is gated by its own moment.
        positions (str, optional): ``'sine'`` tells the projections where a position
            lies along these axes; by default no order is known.

    Raises:
        ValueError: If an argument is out of its range.
    """

    dims = 3
    _conv = nn.Conv3d


@MODELS.register_module()
class PolyNL2d(_PolyNL):
    """Poly-NL for images, (B, C, H, W) -> same shape: see :class:`PolyNL3d`."""

    dims = 2
    _conv = nn.Conv2d
