"""Pyramid non-local: every position attends to regions at several scales.

After "Pyramid Non-local" (PNL), Neurocomputing 2021, of which only the abstract could
be read: "incorporating regional correlations at multiple scales through a pyramid
structured module". The grids, one softmax a grid, and the mean over the grids are ours.
"""

from collections.abc import Sequence

import torch.nn as nn
from mmengine.registry import MODELS
from torch import Tensor

from polynl_mm.ops.pyramid import pool_regions, pyramid_non_local
from polynl_mm.plugins.base import (
    Axes,
    group_shape,
    groups_as_samples,
    samples_as_groups,
)
from polynl_mm.plugins.residual import ResidualPlugin

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
    ) -> None:
        super().__init__(
            in_channels,
            reduction=reduction,
            axes=axes,
            norm_cfg=norm_cfg,
            zero_init=zero_init,
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
        self.grids = grids
        self.use_scale = use_scale
        self.theta = self.projection(in_channels, inner)
        self.phi = nn.Conv1d(in_channels, inner, 1)
        self.g = nn.Conv1d(in_channels, inner, 1)
        self.reset_parameters()

    def context(self, x: Tensor) -> Tensor:
        """Return the mean over the grids of the attention to their regions."""
        shape = group_shape(tuple(x.shape[2:]), self.axes)
        regions = pool_regions(groups_as_samples(x, self.axes), shape, self.grids)
        y = pyramid_non_local(
            groups_as_samples(self.theta(x), self.axes),
            # Averages commute with 1x1 projections: S regions are projected, not N.
            [self.phi(region) for region in regions],
            [self.g(region) for region in regions],
            scale=self.use_scale,
        )
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

    Raises:
        ValueError: If an argument is out of its range.
    """

    dims = 3


@MODELS.register_module()
class PyramidNL2d(_PyramidNL):
    """Pyramid non-local block for images, (B, C, H, W): see :class:`PyramidNL3d`."""

    dims = 2
