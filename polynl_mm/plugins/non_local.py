"""The non-local block, interchangeable with mmcv's NonLocal2d and NonLocal3d.

Wang, Girshick, Gupta, He: "Non-local Neural Networks", CVPR 2018,
https://arxiv.org/abs/1711.07971. Constructor arguments, state-dict keys and outputs are
those of mmcv's modules; the schedule is ours.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn as nn
from mmcv.cnn import build_conv_layer
from mmengine.registry import MODELS
from torch import Tensor

from polynl_mm.ops import pairwise
from polynl_mm.ops.dot_product_block import dot_product_block, is_cheaper
from polynl_mm.ops.summaries import Holder, gathered, holder
from polynl_mm.plugins.base import (
    Axes,
    Plugin,
    build_norm,
    check_whole,
    group_shape,
    groups_as_samples,
    is_whole,
    samples_as_groups,
)
from polynl_mm.plugins.key_positions import (
    by_temporal_groups,
    check_parts,
    check_sizes,
    check_temporal_groups,
    pool_sizes,
)
from polynl_mm.plugins.position_encoding import Positions
from polynl_mm.plugins.readable_layers import is_one_convolution
from polynl_mm.plugins.shared_norms import normalise

MODES = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")


class _NonLocalBlock(Plugin):
    # The name of the child module in MMAction2's non-local checkpoints.
    _abbr_ = "non_local_block"
    _pool: type[nn.Module]

    def __init__(
        self,
        in_channels: int,
        sub_sample: bool = False,
        conv_cfg: dict | None = None,
        *,
        reduction: int = 2,
        use_scale: bool = True,
        norm_cfg: dict | None = None,
        mode: str = "embedded_gaussian",
        axes: Axes = "spacetime",
        zeros_init: bool = True,
        zero_init: bool | None = None,
        std: float = 0.01,
        pool_first: bool = False,
        pool_size: int | Sequence[int] | None = None,
        temporal_groups: int = 1,
        bias: bool = True,
        inner_channels: int | None = None,
        norm_weight: float | None = None,
        positions: Positions | None = None,
    ) -> None:
        super().__init__(in_channels, axes=axes, positions=positions)
        name = type(self).__name__
        if mode not in MODES:
            raise ValueError(f"{name}: mode is one of {MODES}, not {mode!r}.")
        if not is_whole(reduction, 1):
            raise ValueError(
                f"{name}: reduction is a whole number from 1, not {reduction!r}."
            )
        if pool_first and not sub_sample:
            raise ValueError(
                f"{name}: pool_first=True says when sub_sample=True pools; set it, too."
            )
        if pool_size is not None and not sub_sample:
            raise ValueError(
                f"{name}: pool_size={pool_size} says how sub_sample=True pools; set "
                "it, too."
            )
        check_temporal_groups(self, temporal_groups)
        number = isinstance(norm_weight, int | float) and norm_weight > 0
        if norm_weight is not None and not (norm_cfg and number):
            raise ValueError(
                f"{name}: norm_weight is where the weight of norm_cfg's layer starts, "
                f"above 0, not {norm_weight!r} with norm_cfg={norm_cfg}."
            )
        if inner_channels is not None:
            check_whole(self, "inner_channels", inner_channels, 1, 2**16)
        self.pool_size = pool_sizes(self, pool_size) if sub_sample else None
        self.temporal_groups = temporal_groups
        self.norm_weight = norm_weight
        self.sub_sample = sub_sample
        self.pool_first = pool_first
        self.reduction = reduction
        self.use_scale = use_scale
        self.mode = mode
        self.zeros_init = zeros_init if zero_init is None else zero_init
        self.std = std
        inner = inner_channels or max(in_channels // reduction, 1)
        self.inter_channels = inner
        conv_cfg = conv_cfg or dict(type=f"Conv{self.dims}d")

        def projection() -> nn.Sequential:
            return _named_conv(in_channels, inner, conv_cfg, bias)

        if pool_first:
            self.pool = self._pool(self.pool_size)
        self.g = self._sub_sampled(projection())
        self.conv_out = _named_conv(inner, in_channels, conv_cfg, bias and not norm_cfg)
        if norm_cfg:
            self.conv_out.add_module(*build_norm(self, norm_cfg, in_channels))
        if mode != "gaussian":
            self.theta = projection()
            self.phi = self._sub_sampled(projection())
        elif sub_sample and not pool_first:
            self.phi = self._pool(self.pool_size)
        if mode == "concatenation":
            self.concat_project = nn.Sequential(
                OrderedDict(conv=nn.Conv2d(2 * inner, 1, 1, bias=False))
            )
        self.reset_parameters()

    def _sub_sampled(self, layer: nn.Sequential) -> nn.Sequential:
        if not self.sub_sample or self.pool_first:
            return layer
        return nn.Sequential(layer, self._pool(self.pool_size))

    def reset_parameters(self) -> None:
        """Set the weights as at construction: the identity where ``zeros_init``."""
        for layer in self.modules():
            if hasattr(layer, "reset_parameters") and layer is not self:
                layer.reset_parameters()
        for name in ("g", "theta", "phi"):
            for layer in getattr(self, name, nn.Identity()).modules():
                if hasattr(layer, "weight"):
                    nn.init.normal_(layer.weight, std=self.std)
                    if layer.bias is not None:
                        nn.init.zeros_(layer.bias)
        last = self.conv_out[-1]  # the norm where there is one
        if self.norm_weight is not None:
            nn.init.constant_(last.weight, self.norm_weight)
            last = self.conv_out.conv
        if self.zeros_init:
            nn.init.zeros_(last.weight)
        else:
            nn.init.normal_(last.weight, std=self.std)
        if last.bias is not None:
            nn.init.zeros_(last.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x + conv_out(affinity(x) g(x))``.

        Args:
            x (Tensor): Features, (B, C, *positions).

        Returns:
            Tensor: Features of the same shape.

        Raises:
            ValueError: If the shape is not the one this plugin was built for.
        """
        self.check_input(x)
        if self.temporal_groups > 1 and self.others is not None:
            return self._forward_whole(x)
        check_sizes(self, x, self.pool_size, self.temporal_groups)
        if self.others is not None and self.pool_size is not None:
            check_parts(self, self.others.lengths(x.shape[2]), self.pool_size[0])
        return by_temporal_groups(self._forward, x, self.temporal_groups)

    def _forward_whole(self, x: Tensor) -> Tensor:
        """Compute the whole clip, for groups of frames that cross its parts."""
        before, _ = self.others.place(x.shape[2])
        whole = self.others.gather(x, 2)
        check_sizes(self, whole, self.pool_size, self.temporal_groups)
        block = partial(self._forward, alone=True)
        y = by_temporal_groups(block, whole, self.temporal_groups)
        return y[:, :, before : before + x.shape[2]]

    def _forward(self, x: Tensor, alone: bool = False) -> Tensor:
        others = None if alone else self.others
        if self._folds(x, others):
            return self._fold(x, others, None if alone else holder())
        encoding = self.position_encoding
        read = x if encoding is None else x + encoding(x, others)
        query = read if self.mode == "gaussian" else self.theta(read)
        seen = self.pool(read) if self.pool_first else read  # by phi and g
        key = self.phi(seen) if hasattr(self, "phi") else seen
        samples = (groups_as_samples(f, self.axes) for f in (query, key, self.g(seen)))
        y = samples_as_groups(
            self._attend(*samples, others), self.axes, x.shape[0], x.shape[2:]
        )
        conv, *norm = self.conv_out.children()
        if not norm or alone or holder() is None:
            return x + self.conv_out(y)
        return x + normalise(norm[0], conv(y), holder())

    def _folds(self, x: Tensor, others: Holder | None = None) -> bool:
        """Return whether one matrix a sample is the cheaper form of this block."""
        if self.mode != "dot_product" or self.sub_sample or self.positions:
            return False  # the matrix would be applied to what is passed on, too
        if others is not None and self.axes == "time":
            return False  # keys and values of a pixel are less than K x K
        norm = [name for name, _ in self.conv_out.named_children() if name != "conv"]
        layers = (self.theta, self.phi, self.g)
        if not all(map(is_one_convolution, layers)):
            return False
        if not is_one_convolution(self.conv_out, *norm[:1]):
            return False
        positions = math.prod(group_shape(x.shape[2:], self.axes))
        training = torch.is_grad_enabled() and (
            x.requires_grad or self.conv_out.conv.weight.requires_grad
        )
        return is_cheaper(self.in_channels, self.inter_channels, positions, training)

    def _fold(self, x: Tensor, others: Holder | None, of_norm: Holder | None) -> Tensor:
        convs = (self.theta.conv, self.phi.conv, self.g.conv, self.conv_out.conv)
        _, *norm = self.conv_out.children()
        y = dot_product_block(
            groups_as_samples(x, self.axes),
            *((conv.weight.flatten(1), conv.bias) for conv in convs),
            residual=len(norm) == 0,  # dynamo (torch 2.11) knows no `not` of it
            others=others,
        )
        y = samples_as_groups(y, self.axes, x.shape[0], x.shape[2:])
        return x + normalise(norm[0], y, of_norm) if norm else y

    def _attend(
        self, theta: Tensor, phi: Tensor, g: Tensor, others: Holder | None
    ) -> Tensor:
        if self.mode == "dot_product" and self.axes != "time":
            return pairwise.dot_product(theta, phi, g, others=others)
        phi, g = gathered(others, phi, g)
        if self.mode == "dot_product":
            return pairwise.dot_product(theta, phi, g)
        if self.mode == "concatenation":
            if not is_one_convolution(self.concat_project, "activate"):
                return self.concatenate(theta, phi, g)
            weight = self.concat_project.conv.weight.flatten()
            return pairwise.concatenation(theta, phi, g, weight)
        scaled = self.mode == "embedded_gaussian" and self.use_scale
        return pairwise.gaussian(theta, phi, g, scale=scaled)

    def concatenate(self, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        """Average by the concatenation, its layer called on every pair of positions.

        Args:
            theta (Tensor): Queries, (B, K, N).
            phi (Tensor): Keys, (B, K, M).
            g (Tensor): Values, (B, V, M).

        Returns:
            Tensor: (B, V, N).
        """
        shape = (*theta.shape, phi.shape[2])  # (B, K, N, M)
        queries = theta.unsqueeze(3).expand(shape)
        keys = phi.unsqueeze(2).expand(shape)
        pairs = self.concat_project(torch.cat([queries, keys], dim=1)).relu()
        return (g / phi.shape[2]).to(pairs.dtype) @ pairs.squeeze(1).mT

    def extra_repr(self) -> str:
        """Return what ``print(model)`` shows beside the layers."""
        return (
            f"{self.in_channels}, mode={self.mode!r}, sub_sample={self.sub_sample}, "
            f"axes={self.axes!r}, temporal_groups={self.temporal_groups}"
        )


def _named_conv(
    in_channels: int, out_channels: int, conv_cfg: dict, bias: bool = True
) -> nn.Sequential:
    """Return a 1x1 convolution under the name that mmcv's ConvModule gives it.

    Not a ConvModule, because MMAction2's inflation of 2D checkpoints warns of every
    ConvModule that the checkpoint lacks.
    """
    conv = build_conv_layer(conv_cfg, in_channels, out_channels, 1, bias=bias)
    return nn.Sequential(OrderedDict(conv=conv))


@MODELS.register_module()
class NonLocalBlock3d(_NonLocalBlock):
    """Non-local block for video, (B, C, T, H, W) -> same shape.

    Loads the weights of mmcv's ``NonLocal3d`` and gives its outputs. Starts as the
    identity. Source: Wang et al., "Non-local Neural Networks", CVPR 2018.

    Args:
        in_channels (int): C, the channels of the features.
        sub_sample (bool): Max-pool ``phi`` and ``g`` by 2 x 2 in space.
        conv_cfg (dict, optional): The convolution layers, in mmcv's notation.
        reduction (int): The inner width is ``in_channels // reduction``, at least 1.
        use_scale (bool): Divide by the root of the inner width before the softmax of
            ``'embedded_gaussian'``.
        norm_cfg (dict, optional): A normalisation in ``conv_out``, in mmcv's notation.
        mode (str): ``'gaussian'``, ``'embedded_gaussian'``, ``'dot_product'`` or
            ``'concatenation'``.
        axes (str): ``'spacetime'``, ``'space'`` (each frame alone) or ``'time'``
            (each pixel alone).
        zeros_init (bool): Start as the identity.
        zero_init (bool, optional): The other plugins' name of ``zeros_init``, which it
            overrides.
        std (float): Standard deviation of the projections' initial weights.
        pool_first (bool): With ``sub_sample``, pool before projecting to ``phi`` and
            ``g``, as PySlowFast and the non-local authors' code do, at a quarter of
            the cost; mmcv, and the default, pool after, which is not the same.
        pool_size (int | Sequence[int], optional): With ``sub_sample``, the size and
            stride of the pooling: a number for space, or one for each of (T, H, W); by
            default 2 in space, as mmcv's.
        temporal_groups (int): Equal groups of frames, each a clip of its own, as
            PySlowFast's GROUP: for ``'spacetime'`` and ``'time'``, in 3d only.
        bias (bool): Give theta, phi, g and, where no norm follows, conv_out a bias.
        inner_channels (int, optional): The width of the projections, which may be above
            C; overrides ``reduction``.
        norm_weight (float, optional): Where the weight of the normalisation starts, as
            a rule 1; the identity is then by a conv_out that starts at zero. By default
            it starts at zero itself, or as mmcv's without ``zeros_init``.
        positions (str, optional): ``'sine'`` tells the projections where a position
            lies along these axes; by default no order is known.

    Raises:
        ValueError: If an argument is out of its range.
    """

    dims = 3
    _pool = nn.MaxPool3d


@MODELS.register_module()
class NonLocalBlock2d(_NonLocalBlock):
    """Non-local block for images, (B, C, H, W) -> same shape.

    Loads the weights of mmcv's ``NonLocal2d`` and gives its outputs; the arguments
    are those of :class:`NonLocalBlock3d`.
    """

    dims = 2
    _pool = nn.MaxPool2d
