"""Rows of affinities: what one query gives every key, never for more than one query."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from polynl_mm.ops.criss_cross import affinity_lines
from polynl_mm.ops.pyramid import pool_regions

# Similarities held at a time where every query has a part: 16 MiB in float32.
_CHUNK = 2**22
_MAX_POOLS = {
    1: functional.max_pool1d,
    2: functional.max_pool2d,
    3: functional.max_pool3d,
}


def softmax_row(query: Tensor, keys: Tensor, *, scale: bool = False) -> Tensor:
    """Return a query's softmax over keys: (K,), (K, M) -> (M,)."""
    factor = len(query) ** -0.5 if scale else 1.0
    return ((query * factor) @ keys).softmax(dim=0)


def times_softmax(
    row: Tensor, theta: Tensor, phi: Tensor, *, scale: bool = False
) -> Tensor:
    """Multiply a row from the right by the affinity ``softmax(theta^T phi)``.

    Args:
        row (Tensor): (N,).
        theta (Tensor): Queries, (K, N).
        phi (Tensor): Keys, (K, N).
        scale (bool): Divide the similarities by the root of K.

    Returns:
        Tensor: (N,). Time is the square of N; some queries at a time are held.
    """
    factor = len(theta) ** -0.5 if scale else 1.0
    product = torch.zeros_like(row)
    size = max(1, _CHUNK // phi.shape[1])
    for queries, part in zip(theta.split(size, dim=1), row.split(size), strict=True):
        product += part @ ((queries * factor).mT @ phi).softmax(dim=1)
    return product


def chebyshev_rows(one_hot: Tensor, times, orders: int, stable: bool) -> list[Tensor]:
    """Return a position's rows of the Chebyshev polynomials of an affinity A.

    Polynomials of A commute with it: each row is the one before it, times A.

    Args:
        one_hot (Tensor): The row of T_0 = I, (N,).
        times (Callable[[Tensor], Tensor]): A row times A.
        orders (int): How many rows, at least 1.
        stable (bool): Put A for A^2 in every polynomial.

    Returns:
        list[Tensor]: The rows of T_0, T_1, ..., (N,) each.
    """
    rows = [one_hot]
    for order in range(1, orders):
        if order == 1:
            rows.append(times(one_hot))
        elif stable:
            at_zero = (1.0, 0.0, -1.0, 0.0)[order % 4]  # T_order(0); T_order(1) is 1
            rows.append(at_zero * one_hot + (1 - at_zero) * rows[1])
        else:
            rows.append(2 * times(rows[-1]) - rows[-2])
    return rows


def symmetric_factors(theta: Tensor, phi: Tensor) -> tuple[Tensor, Tensor]:
    """Return t and p of the spectral affinity ``A = t^T p + p^T t``, (K, N) each."""
    t, p = theta.relu(), phi.relu()
    degree = (p.mean(dim=1) @ t + t.mean(dim=1) @ p) * t.shape[1]  # (N,)
    root = degree.masked_fill(degree <= 0, float("inf")).rsqrt()
    return t * root, p * root


def times_criss_cross(
    row: Tensor, theta: Tensor, phi: Tensor, shape: Sequence[int]
) -> Tensor:
    """Multiply a row from the right by the criss-cross affinity.

    Args:
        row (Tensor): (N,).
        theta (Tensor): Queries, (K, N).
        phi (Tensor): Keys, (K, N).
        shape (Sequence[int]): The sizes of the axes of positions, of product N.

    Returns:
        Tensor: (N,). Time and memory are N times the sum of the axes' sizes.
    """
    query, key = (t[None].unflatten(2, tuple(shape)) for t in (theta, phi))
    weights = row.view(tuple(shape))
    product = torch.zeros_like(weights)
    for axis, part in enumerate(affinity_lines(query, key)):
        line = part[0].movedim(axis, -2)  # (..., queries, keys)
        along = weights.movedim(axis, -1).unsqueeze(-2)  # (..., 1, queries)
        product += (along @ line).squeeze(-2).movedim(-1, axis)
    return product.flatten()


def max_pool(
    x: Tensor, shape: Sequence[int], size: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Max-pool features, and say which position each maximum is of.

    Args:
        x (Tensor): (K, N).
        shape (Sequence[int]): The sizes of the axes of positions, of product N.
        size (Sequence[int]): By how much each axis is pooled.

    Returns:
        tuple[Tensor, Tensor]: The maxima, and the positions they are of, (K, M) each.
    """
    grid = x[None].unflatten(2, tuple(shape))
    pooled, indices = _MAX_POOLS[len(shape)](grid, tuple(size), return_indices=True)
    return pooled[0].flatten(1), indices[0].flatten(1)


def spread_over_cells(row: Tensor, shape: Sequence[int], size: Sequence[int]) -> Tensor:
    """Share what the cells of a max-pooling have equally among their positions.

    Args:
        row (Tensor): (M,).
        shape (Sequence[int]): The sizes of the axes of positions, of product N.
        size (Sequence[int]): By how much each axis is pooled; what is left over at its
            end is in no cell.

    Returns:
        Tensor: (N,).
    """
    cells = [length // pool for length, pool in zip(shape, size, strict=True)]
    spread = row.view(cells)
    for axis, pool in enumerate(size):
        spread = spread.repeat_interleave(pool, dim=axis) / pool
    whole = row.new_zeros(tuple(shape))
    whole[tuple(slice(length) for length in spread.shape)] = spread
    return whole.flatten()


def spread_over_regions(
    rows: Sequence[Tensor], shape: Sequence[int], grids: Sequence[Sequence[int]]
) -> Tensor:
    """Share what regions have among their positions, as averages of these share it.

    Args:
        rows (Sequence[Tensor]): For each grid, a number for each region, (S,).
        shape (Sequence[int]): The sizes of the axes of positions, of product N.
        grids (Sequence[Sequence[int]]): For each grid, the regions along every axis.

    Returns:
        Tensor: (N,).
    """
    like = rows[0].new_zeros(1, 1, torch.Size(shape).numel())
    with torch.enable_grad():
        like.requires_grad_()
        pooled = pool_regions(like, shape, grids)
        (spread,) = torch.autograd.grad(pooled, like, [row[None, None] for row in rows])
    return spread.flatten()
