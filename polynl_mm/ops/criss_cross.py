"""Criss-cross attention: every position attends along the axes that cross in it."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from polynl_mm.ops.precision import (
    accumulate_dtype,
    cast,
    compute_dtype,
    without_autocast,
)
from polynl_mm.ops.summaries import Holder, gathered


def criss_cross(
    theta: Tensor,
    phi: Tensor,
    g: Tensor,
    shape: Sequence[int],
    *,
    scale: bool = False,
    others: Holder | None = None,
) -> Tensor:
    """Attend from each position to those that differ from it along one axis at most.

    In 2d these are its row and its column, itself counted once. Time and memory are N
    times the sum of the axes' sizes. Source: Huang et al., "CCNet: Criss-Cross
    Attention for Semantic Segmentation", ICCV 2019, whose code has it over three axes,
    too.

    Half types are computed in float32: the similarities have no bound.

    Args:
        theta (Tensor): Queries, (B, K, N).
        phi (Tensor): Keys, (B, K, N).
        g (Tensor): Values, (B, V, N).
        shape (Sequence[int]): The sizes of the axes of positions, of product N.
        scale (bool): Divide the similarities by the root of K; the paper does not.
        others (Holder, optional): Who holds the other positions along the first axis.

    Returns:
        Tensor: (B, V, N).
    """
    dtype = compute_dtype(theta, phi, g)
    wide = cast(accumulate_dtype(theta, phi, g), theta, phi, g)
    factor = theta.shape[1] ** -0.5 if scale else 1.0
    with without_autocast(theta):
        query, key, value = (t.unflatten(2, tuple(shape)) for t in wide)
        keys, values = ([own] * len(shape) for own in (key, value))
        if others is not None:
            # Along the first axis, all parts' keys and values; along the others, its
            # own.
            whole = gathered(others, *wide[1:])
            keys[0], values[0] = (t.unflatten(2, (-1, *shape[1:])) for t in whole)
        parts = affinity_lines(query * factor, *keys)
        y = sum(_average(part, values[axis], axis) for axis, part in enumerate(parts))
        return y.flatten(2).to(dtype)


def affinity_lines(query: Tensor, key: Tensor, *keys: Tensor) -> tuple[Tensor, ...]:
    """Return each position's softmax over the positions that cross in it.

    Args:
        query (Tensor): (B, K, *shape).
        key (Tensor): (B, K, *shape), along the first axis possibly longer.
        *keys (Tensor): The keys along each further axis, (B, K, *shape); by default
            ``key``.

    Returns:
        tuple[Tensor, ...]: For each axis what the positions along it get, (B, *shape,
        size of the axis); zero for the position itself in all but the first.
    """
    shape = tuple(query.shape[2:])
    keys = (key, *(keys or [key] * (len(shape) - 1)))
    lines = [_similarity(query, along, axis) for axis, along in enumerate(keys)]
    affinity = torch.cat(lines, dim=-1).softmax(dim=-1)  # (B, *shape, sum(shape))
    return affinity.split([line.shape[-1] for line in lines], dim=-1)


def _similarity(query: Tensor, key: Tensor, axis: int) -> Tensor:
    """Return each position's similarities along an axis, (B, *shape, size of axis)."""
    query, key = (t.movedim(axis + 2, -1) for t in (query, key))
    similarity = torch.einsum("bc...q,bc...k->b...qk", query, key)
    if axis > 0:
        # The first axis has counted the position itself.
        itself = torch.eye(key.shape[-1], dtype=torch.bool, device=key.device)
        similarity = similarity.masked_fill(itself, -math.inf)
    return similarity.movedim(-2, axis + 1)


def _average(affinity: Tensor, value: Tensor, axis: int) -> Tensor:
    """Return the values along an axis summed by their affinity, (B, V, *shape)."""
    affinity = affinity.movedim(axis + 1, -2)  # (B, ..., queries, keys)
    value = value.movedim(axis + 2, -1)
    y = torch.einsum("b...qk,bc...k->bc...q", affinity, value)
    return y.movedim(-1, axis + 2)
