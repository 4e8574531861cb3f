"""Pyramid non-local: every position attends to regions at several scales.

After "Pyramid Non-local" (PNL), Neurocomputing 2021, of which only the abstract could
be read: "incorporating regional correlations at multiple scales through a pyramid
structured module". The grids, one softmax a grid, and the mean over the grids are ours.

Options make it the Asymmetric Pyramid Non-local Block (APNB) of Zhu, Xu, Bai, Huang,
Bai: "Asymmetric Non-local Neural Networks for Semantic Segmentation", ICCV 2019,
https://arxiv.org/abs/1908.07678.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn as nn
from mmengine.registry import MODELS
from torch import Tensor

from polynl_mm.ops.pyramid import pool_regions, pyramid_non_local
from polynl_mm.ops.summaries import holder
from polynl_mm.plugins.base import (
    Axes,
    build_norm,
    group_shape,
    groups_as_samples,
    samples_as_groups,
)
from polynl_mm.plugins.position_encoding import Positions
from polynl_mm.plugins.residual import ResidualPlugin
from polynl_mm.plugins.shared_norms import normalise

# Regions along each axis, by the number of axes that a group of positions lies along.
GRIDS: dict[int, tuple[tuple[int, ...], ...]] = {
    1: ((1,), (2,), (4,), (8,)),
    2: ((1, 1), (3, 3), (6, 6), (8, 8)),
    3: ((1, 1, 1), (2, 3, 3), (4, 6, 6)),
}


class _PyramidNL(ResidualPlugin):
    _abbr_ = "pyramid_nl"

    def __init__(
        self,
        in_channels: int,
        *,
        reduction: int = 2,
        grids: Sequence[Sequence[int]] | None = None,
        use_scale: bool = True,
        axes: Axes = "spacetime",
        norm_cfg: dict | None = None,
        zero_init: bool = True,
        joint_softmax: bool = False,
        share_key_query: bool = False,
        key_query_norm_cfg: dict | None = None,
        positions: Positions | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            reduction=reduction,
            axes=axes,
            norm_cfg=norm_cfg,
            zero_init=zero_init,
            positions=positions,
        )
        inner = self.inner_channels
        crossing = len(group_shape((0,) * self.dims, axes))
        grids = GRIDS[crossing] if grids is None else tuple(map(tuple, grids))
        if not grids or any(len(g) != crossing or min(g) < 1 for g in grids):
            raise ValueError(
                f"{type(self).__name__}: grids is a list of grids, each with a number "
                f"of regions from 1 for each of {crossing} axes (axes={axes!r}), such "
                f"as {GRIDS[crossing]}, not {grids}."
            )
        if key_query_norm_cfg and not share_key_query:
            raise ValueError(
                f"{type(self).__name__}: key_query_norm_cfg normalises what queries "
                "and keys share; set share_key_query=True, too."
            )
        self.grids = grids
        self.use_scale = use_scale
        self.joint_softmax = joint_softmax
        self.theta = self.projection(in_channels, inner)
        self.theta_norm = None
        if key_query_norm_cfg:
            self.theta_norm = build_norm(self, key_query_norm_cfg, inner)[1]
        self.phi = None if share_key_query else nn.Conv1d(in_channels, inner, 1)
        self.g = nn.Conv1d(in_channels, inner, 1)
        self.reset_parameters()

    def context(self, x: Tensor, pool: Callable = pool_regions) -> Tensor:
        """Return the attention to the regions of the grids.

        Args:
            x (Tensor): Features, (B, C, *positions).
            pool (Callable): What averages over regions, called as
                :func:`polynl_mm.ops.pyramid.pool_regions` is.

        Returns:
            Tensor: (B, inner_channels, *positions).
        """
        shape = group_shape(tuple(x.shape[2:]), self.axes)
        if self.others is not None:
            pool = partial(pool, others=self.others)
        regions = pool(groups_as_samples(x, self.axes), shape, self.grids)
        query = self.theta(x)
        if self.theta_norm is not None:
            query = normalise(self.theta_norm, query, holder()).relu()
        query = groups_as_samples(query, self.axes)
        # Averages commute with 1x1 projections: S regions are projected, not N. They
        # do not commute with a norm and a ReLU, behind which the keys are pooled.
        if self.phi is None:
            keys = pool(query, shape, self.grids)
        else:
            keys = [self.phi(region) for region in regions]
        values = [self.g(region) for region in regions]
        if self.joint_softmax:
            keys, values = ([torch.cat(t, dim=2)] for t in (keys, values))
        y = pyramid_non_local(query, keys, values, scale=self.use_scale)
        return samples_as_groups(y, self.axes, x.shape[0], x.shape[2:])


@MODELS.register_module()
class PyramidNL3d(_PyramidNL):
    """Pyramid non-local block for video, (B, C, T, H, W) -> same shape.

    After "Pyramid Non-local" (PNL), Neurocomputing 2021, of which only the abstract
    could be read; see ``docs/blocks.md`` for what is ours.

    Args:
        in_channels (int): C, the channels of the features.
        reduction (int): Queries, keys and values have ``C // reduction`` channels.
        grids (Sequence[Sequence[int]], optional): For each level the regions along
            each axis; by default 1 x 1 x 1, 2 x 3 x 3 and 4 x 6 x 6.
        use_scale (bool): Divide the similarities by the root of the inner width.
        axes (str): ``'spacetime'``, ``'space'`` (each frame alone) or ``'time'``
            (each pixel alone).
        norm_cfg (dict, optional): A normalisation after ``out``, in mmcv's notation.
        zero_init (bool): Start as the identity.
        joint_softmax (bool): Take one softmax over the regions of all grids, as APNB
            does, not the mean of one softmax for each.
        share_key_query (bool): Let queries and keys share ``theta``; there is no
            ``phi``.
        key_query_norm_cfg (dict, optional): A normalisation, in mmcv's notation, and a
            ReLU after the shared projection, before its regions are averaged.
        positions (str, optional): ``'sine'`` tells the projections where a position
            lies along these axes; by default no order is known.

    Raises:
        ValueError: If an argument is out of its range.
    """

    dims = 3


@MODELS.register_module()
class PyramidNL2d(_PyramidNL):
    """Pyramid non-local block for images, (B, C, H, W): see :class:`PyramidNL3d`."""

    dims = 2
