"""Pyramid non-local: every position attends to the pooled regions of several grids.

Averages commute with a block's 1x1 projections: it may pool its features first, and
project S regions instead of N positions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from polynl_mm.ops.pairwise import gaussian
from polynl_mm.ops.precision import accumulate_dtype
from polynl_mm.ops.summaries import Holder

_POOLS = {
    1: functional.adaptive_avg_pool1d,
    2: functional.adaptive_avg_pool2d,
    3: functional.adaptive_avg_pool3d,
}


def pool_regions(
    x: Tensor,
    shape: Sequence[int],
    grids: Sequence[Sequence[int]],
    *,
    others: Holder | None = None,
) -> list[Tensor]:
    """Average the features over the regions of each grid.

    Args:
        x (Tensor): Features, (B, C, N).
        shape (Sequence[int]): The sizes of the axes of positions, of product N.
        grids (Sequence[Sequence[int]]): For each grid, the regions along every axis; no
            more than there are positions are made.
        others (Holder, optional): Who holds the other positions along the first axis.

    Returns:
        list[Tensor]: For each grid, (B, C, S) with S its number of regions.

    Raises:
        ValueError: If a grid has not one positive number for every axis.
    """
    shape = tuple(shape)
    # Half types are summed in float32.
    positions = x.to(accumulate_dtype(x)).unflatten(2, shape)
    place = None if others is None else others.place(shape[0])
    pooled = []
    for grid in grids:
        if len(grid) != len(shape) or min(grid) < 1:
            raise ValueError(
                f"A grid has a number of regions, at least 1, for each of the "
                f"{len(shape)} axes of positions of shape {shape}; got {tuple(grid)}."
            )
        if others is not None:
            pooled.append(_pool_shared(positions, grid, place).to(x.dtype))
            continue
        regions = tuple(min(pair) for pair in zip(shape, grid, strict=True))
        pooled.append(_POOLS[len(shape)](positions, regions).flatten(2).to(x.dtype))
    if others is not None:
        return list(others.sum(*pooled))
    return pooled


def _pool_shared(
    positions: Tensor, grid: Sequence[int], place: tuple[int, int]
) -> Tensor:
    """Return what a part of the first axis adds to the regions of the whole."""
    before, whole = place
    length, *rest = positions.shape[2:]
    if rest:
        regions = tuple(map(min, rest, grid[1:]))
        frames = positions.movedim(2, 1).flatten(0, 1)  # (B L, C, ...)
        frames = _POOLS[len(rest)](frames, regions).flatten(2)
        frames = frames.unflatten(0, (-1, length)).movedim(1, 2)  # (B, C, L, S)
    else:
        frames = positions.unsqueeze(3)
    count = min(grid[0], whole)
    at = torch.arange(before, before + length, device=positions.device)
    region = torch.arange(count, device=positions.device).unsqueeze(1)
    first, last = region * whole // count, -((region + 1) * -whole // count)
    inside = (first <= at) & (at < last)  # (S, L)
    share = inside.to(positions.dtype) / (last - first)
    return torch.einsum("sl,bclr->bcsr", share, frames).flatten(2)


def pyramid_non_local(
    theta: Tensor, phi: Sequence[Tensor], g: Sequence[Tensor], *, scale: bool = False
) -> Tensor:
    """Attend to the regions of each grid, and take the mean over the grids.

    After "Pyramid Non-local" (PNL), Neurocomputing 2021, of which only the abstract
    could be read: the regions, one softmax a grid, and the mean over the grids are our
    reading of it. Time is N S, and memory too, for S regions.

    Args:
        theta (Tensor): Queries, (B, K, N).
        phi (Sequence[Tensor]): For each grid the keys of its regions, (B, K, S): what
            :func:`pool_regions` made of keys, or the projection of what it made of
            features.
        g (Sequence[Tensor]): For each grid the values of its regions, (B, V, S).
        scale (bool): Divide the similarities by the root of K.

    Returns:
        Tensor: (B, V, N).
    """
    averages = [
        gaussian(theta, key, value, scale=scale)
        for key, value in zip(phi, g, strict=True)
    ]
    return sum(averages) / len(averages)
