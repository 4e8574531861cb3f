"""Compact generalised non-local: correlations between channels, too, at linear cost.

Yue, Sun, Yuan, Zhou, Ding, Xu: "Compact Generalized Non-local Network", NeurIPS 2018,
https://arxiv.org/abs/1810.13125.
"""

from typing import Literal

import torch
import torch.nn as nn
from mmengine.registry import MODELS
from torch import Tensor
from torch.func import functional_call

from polynl_mm.ops.factored import compact_generalized_dot, compact_generalized_rbf
from polynl_mm.ops.precision import without_autocast
from polynl_mm.ops.summaries import holder
from polynl_mm.plugins.base import (
    Axes,
    Plugin,
    build_norm,
    check_whole,
    groups_as_samples,
    inner_width,
    samples_as_groups,
)
from polynl_mm.plugins.position_encoding import Positions
from polynl_mm.plugins.residual import CONVOLUTIONS
from polynl_mm.plugins.shared_norms import normalise

KERNELS = ("dot", "rbf")


class _CompactGeneralizedNL(Plugin):
    _abbr_ = "compact_generalized_nl"

    def __init__(
        self,
        in_channels: int,
        *,
        reduction: int = 2,
        groups: int = 8,
        kernel: Literal["dot", "rbf"] = "dot",
        order: int = 3,
        gamma: float = 1e-4,
        scale: bool = False,
        axes: Axes = "spacetime",
        zero_init: bool = True,
        inner_channels: int | None = None,
        norm_groups: int | None = None,
        norm_cfg: dict | None = None,
        positions: Positions | None = None,
    ) -> None:
        super().__init__(in_channels, axes=axes, positions=positions)
        name = type(self).__name__
        inner = inner_width(self, reduction, inner_channels)
        check_whole(self, "groups", groups, 1, in_channels)
        if inner % groups or in_channels % groups:
            raise ValueError(
                f"{name}: groups={groups} does not divide in_channels={in_channels} "
                f"and the inner {inner} channels into equal parts."
            )
        if kernel not in KERNELS:
            raise ValueError(f"{name}: kernel is one of {KERNELS}, not {kernel!r}.")
        check_whole(self, "order", order, 1, 10)
        if norm_cfg and norm_groups is not None:
            raise ValueError(
                f"{name}: norm_groups={norm_groups} is the number of groups of the "
                "default GroupNorm; with norm_cfg, give it there as num_groups."
            )
        norm_groups = groups if norm_groups is None else norm_groups
        check_whole(self, "norm_groups", norm_groups, 1, in_channels)
        if in_channels % norm_groups:
            raise ValueError(
                f"{name}: norm_groups={norm_groups} does not divide in_channels="
                f"{in_channels} into equal parts."
            )
        self.groups = groups
        self.kernel = kernel
        self.order = order
        self.gamma = gamma
        self.scale = scale
        self.zero_init = zero_init
        conv = CONVOLUTIONS[self.dims]
        self.theta = conv(in_channels, inner, 1, bias=False)
        self.phi = conv(in_channels, inner, 1, bias=False)
        self.g = conv(in_channels, inner, 1, bias=False)
        self.out = conv(inner, in_channels, 1, groups=groups, bias=False)
        norm_cfg = norm_cfg or dict(type="GN", num_groups=norm_groups)
        self.norm = build_norm(self, norm_cfg, in_channels)[1]
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the weights as at construction: the identity where ``zero_init``."""
        for child in self.children():
            child.reset_parameters()
        if self.zero_init:
            nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x + norm(out(context))``.

        Args:
            x (Tensor): Features, (B, C, *positions).

        Returns:
            Tensor: Features of the same shape and type.

        Raises:
            ValueError: If the shape is not the one this plugin was built for.
        """
        self.check_input(x)
        read = self.placed(x)
        projected = (self.theta(read), self.phi(read), self.g(read))
        samples = [groups_as_samples(p, self.axes) for p in projected]
        options = dict(groups=self.groups, scale=self.scale, others=self.others)
        if self.kernel == "dot":
            y = compact_generalized_dot(*samples, **options)
        else:
            y = compact_generalized_rbf(
                *samples, order=self.order, gamma=self.gamma, **options
            )
        y = samples_as_groups(y, self.axes, x.shape[0], x.shape[2:])
        # The sum over positions and channels leaves float16's range; the norm that
        # brings it back comes after the convolution.
        with without_autocast(x):
            y = _call_wide(self.out, y)
            if holder() is None:
                y = _call_wide(self.norm, y)
            else:
                y = normalise(self.norm, y, holder())
        return x + y.to(x.dtype)


def _call_wide(module: nn.Module, y: Tensor) -> Tensor:
    """Call a module in the type of y, which may be wider than its weights."""
    weights = list(module.parameters())
    if not weights or weights[0].dtype == y.dtype:
        return module(y)
    if torch.jit.is_tracing():  # which functional_call refuses
        raise RuntimeError(
            f"CompactGeneralizedNL in {weights[0].dtype} cannot be traced: trace it "
            "with weights in float32."
        )
    state = dict(module.named_parameters()) | dict(module.named_buffers())
    wide = {
        name: t.to(y.dtype) if t.is_floating_point() else t for name, t in state.items()
    }
    result = functional_call(module, wide, (y,))
    if module.training:
        with torch.no_grad():
            for name, buffer in module.named_buffers():
                buffer.copy_(wide[name])  # a norm's statistics
    return result


@MODELS.register_module()
class CompactGeneralizedNL3d(_CompactGeneralizedNL):
    """Compact generalised non-local (CGNL) block for video, (B, C, T, H, W).

    Source: Yue et al., "Compact Generalized Non-local Network", NeurIPS 2018.

    Args:
        in_channels (int): C, the channels of the features.
        reduction (int): The projections have ``C // reduction`` channels.
        groups (int): Groups of channels that correlate among themselves, and of the
            grouped convolution after them; divides both widths.
        kernel (str): ``'dot'``, or ``'rbf'`` in its Taylor form.
        order (int): The Taylor form's highest power, 1 to 10.
        gamma (float): The RBF kernel's width.
        scale (bool): Divide by the root of the number of elements of a group.
        axes (str): ``'spacetime'``, ``'space'`` (each frame alone) or ``'time'``
            (each pixel alone).
        zero_init (bool): Start as the identity, the norm's weight at zero.
        inner_channels (int, optional): The width of the projections; overrides
            ``reduction``.
        norm_groups (int, optional): The groups of the GroupNorm, by default ``groups``
            as published, which divides out the scale that ``'dot'`` gives its group.
        norm_cfg (dict, optional): Another normalisation in its place, in mmcv's
            notation.
        positions (str, optional): ``'sine'`` tells the projections where a position
            lies along these axes; by default no order is known.

    Raises:
        ValueError: If an argument is out of its range.
    """

    dims = 3


@MODELS.register_module()
class CompactGeneralizedNL2d(_CompactGeneralizedNL):
    """CGNL block for images, (B, C, H, W): see :class:`CompactGeneralizedNL3d`."""

    dims = 2
