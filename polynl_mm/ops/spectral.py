"""Chebyshev filters on a non-local affinity; the symmetric one's are linear in N.

With t and p the rectified projections, divided by the root of the degree, the affinity
is ``A = t^T p + p^T t``, of rank 2 K at most. A filtered signal is a multiple of g plus
a part in the span of the rows of t and p, so that the whole recursion runs on matrices
of the channels' size: higher orders cost nothing that grows with N. The derivation is
ours; ``reference.spectral`` is the definition.

An affinity that is a row softmax has no such factors: its filters, and the sum of two
averages that is the disentangled block, cost what the non-local block costs.
"""

import math

import torch
from torch import Tensor

from polynl_mm.ops.factored import global_context
from polynl_mm.ops.pairwise import gaussian
from polynl_mm.ops.precision import (
    accumulate_dtype,
    cast,
    compute_dtype,
    without_autocast,
)
from polynl_mm.ops.products import apply_to_positions, project
from polynl_mm.ops.summaries import Holder, gathered, mean_of_all


def spectral(
    theta: Tensor,
    phi: Tensor,
    g: Tensor,
    weight: Tensor,
    *,
    stable: bool = False,
    others: Holder | None = None,
) -> Tensor:
    """Filter g by a Chebyshev polynomial of the spectral affinity A.

    ``T_0 = I``, ``T_1 = A``, ``T_k = 2 A T_(k-1) - T_(k-2)``. Order 1 is the spectral
    non-local block (SNL), order 2 the generalised one (gSNL). Source: Zhu et al.,
    "Unifying Nonlocal Blocks for Neural Networks", ICCV 2021.

    Half types are computed in float32: the degrees of one clip span more than they can
    tell apart.

    Args:
        theta (Tensor): First projection, (B, K, N).
        phi (Tensor): Second projection, (B, K, N).
        g (Tensor): Signal to filter, (B, V, N).
        weight (Tensor): An output projection for each order from 0, (orders, C, V).
        stable (bool): Put A for A^2 in every term, as gSNL does: T_2 is 2 A - I.
        others (Holder, optional): Who holds the other positions of these clips.

    Returns:
        Tensor: ``sum_k weight_k T_k(A) g``, (B, C, N).
    """
    dtype = compute_dtype(theta, phi, g)
    wide = accumulate_dtype(theta, phi, g)
    theta, phi, g, weight = cast(wide, theta, phi, g, weight)
    with without_autocast(g):
        if len(weight) == 1:
            return project(weight[0], g).to(dtype)
        t, p = _normalised_factors(theta, phi, others)
        if others is None and g.shape[2] <= 2 * theta.shape[1]:
            return _filter_in_full(t, p, g, weight, stable).to(dtype)
        return _filter_by_factors(t, p, g, weight, stable, others).to(dtype)


def spectral_softmax(
    theta: Tensor,
    phi: Tensor,
    g: Tensor,
    weight: Tensor,
    *,
    stable: bool = False,
    scale: bool = False,
    others: Holder | None = None,
) -> Tensor:
    """Filter g by a Chebyshev polynomial of the affinity's row softmax A.

    A is that of the embedded Gaussian. It has full rank, so that each order costs the
    square of N in time, unless ``stable``; it is never stored.

    Args:
        theta (Tensor): First projection, (B, K, N).
        phi (Tensor): Second projection, (B, K, N).
        g (Tensor): Signal to filter, (B, V, N).
        weight (Tensor): An output projection for each order from 0, (orders, C, V).
        stable (bool): Put A for A^2 in every term, as gSNL does: T_2 is 2 A - I.
        scale (bool): Divide the similarities by the root of K.
        others (Holder, optional): Who holds the other positions of these clips.

    Returns:
        Tensor: ``sum_k weight_k T_k(A) g``, (B, C, N).
    """
    dtype, wide = compute_dtype(theta, phi, g), accumulate_dtype(theta, phi, g)
    theta, phi = cast(dtype, theta, phi)
    g, weight = cast(wide, g, weight)
    with without_autocast(g):
        filtered = [g]
        (phi,) = gathered(others, phi)
        for order in range(1, len(weight)):
            if stable and order > 1:
                c = _multiple_of_signal(order)
                filtered.append(c * g + (1 - c) * filtered[1])
                continue
            (signal,) = gathered(others, filtered[-1].to(dtype))
            average = gaussian(theta, phi, signal, scale=scale).to(wide)
            filtered.append(average if order == 1 else 2 * average - filtered[-2])
        y = sum(project(w, signal) for w, signal in zip(weight, filtered, strict=True))
        return y.to(dtype)


def disentangled(
    theta: Tensor,
    phi: Tensor,
    g: Tensor,
    logits: Tensor,
    *,
    scale: bool = False,
    others: Holder | None = None,
) -> Tensor:
    """Sum a pairwise average of g and one that is the same for every position.

    Source: Yin et al., "Disentangled Non-Local Neural Networks", ECCV 2020.

    Args:
        theta (Tensor): Queries, (B, K, N).
        phi (Tensor): Keys, (B, K, N).
        g (Tensor): Values, (B, V, N).
        logits (Tensor): One logit a position, (B, 1, N).
        scale (bool): Divide the similarities by the root of K.
        others (Holder, optional): Who holds the other positions of these clips.

    Returns:
        Tensor: ``sum_j (softmax_j(theta_i . phi_j) + softmax_j(logits_j)) g_j``,
        (B, V, N).
    """
    phi, g, logits = gathered(others, phi, g, logits)
    return gaussian(theta, phi, g, scale=scale) + global_context(logits, g)


def whiten(x: Tensor, others: Holder | None = None) -> Tensor:
    """Subtract from every position the mean over positions: (B, K, N) -> same shape."""
    mean = x.mean(dim=2, keepdim=True, dtype=accumulate_dtype(x))
    if others is not None:
        mean = mean_of_all(others, mean, x.shape[2])
    return (x - mean).to(x.dtype)


def _normalised_factors(
    theta: Tensor, phi: Tensor, others: Holder | None
) -> tuple[Tensor, Tensor]:
    """Return t and p, (B, K, N) each, with A = t^T p + p^T t."""
    t, p = theta.relu(), phi.relu()
    of_t, of_p, count = t.mean(dim=2), p.mean(dim=2), t.shape[2]
    if others is not None:
        number = t.new_tensor([float(count)])
        of_t, of_p, count = others.sum(of_t * count, of_p * count, number)
        of_t, of_p = of_t / count, of_p / count
    degree = of_p.unsqueeze(1) @ t + of_t.unsqueeze(1) @ p
    # Zero degrees: 1 / sqrt(inf) is a zero that passes no gradient on.
    inverse_root = degree.masked_fill(degree <= 0, math.inf).rsqrt()  # (B, 1, N)
    inverse_root = inverse_root / count**0.5
    return t * inverse_root, p * inverse_root


def _multiple_of_signal(order: int) -> float:
    """Return T_order(0): how much of g itself is in the filtered signal."""
    return (1.0, 0.0, -1.0, 0.0)[order % 4]


def _filter_by_factors(
    t: Tensor,
    p: Tensor,
    g: Tensor,
    weight: Tensor,
    stable: bool,
    others: Holder | None,
) -> Tensor:
    """Filter as T_k(A) g = c_k g + z_k [t; p], with the recursion on c and z.

    ``g A = spread [t; p]`` and ``z [t; p] A = z mixing [t; p]``.
    """
    width, orders = t.shape[1], len(weight)
    spread = torch.cat([g @ p.mT, g @ t.mT], dim=2)  # (B, V, 2 K)
    mixing = None
    if orders > 2 and not stable:
        cross = t @ p.mT
        upper = torch.cat([cross, t @ t.mT], dim=2)
        lower = torch.cat([p @ p.mT, cross.mT], dim=2)
        mixing = torch.cat([upper, lower], dim=1)  # (B, 2 K, 2 K)
    if others is not None:
        sums = (spread,) if mixing is None else (spread, mixing)
        spread, *mixings = others.sum(*sums)
        mixing = mixings[0] if mixings else None
    z = [torch.zeros_like(spread), spread]
    c = [_multiple_of_signal(order) for order in range(orders)]
    if stable:
        z += [(1 - c[order]) * spread for order in range(2, orders)]
    elif mixing is not None:
        for order in range(2, orders):
            step = c[order - 1] * spread + z[-1] @ mixing
            z.append(2 * step - z[-2])
    of_signal = sum(c[order] * weight[order] for order in range(orders))  # (C, V)
    of_factors = sum(weight[order] @ z[order] for order in range(1, orders))
    y = apply_to_positions(of_factors[..., :width], t)  # (B, C, N)
    y = apply_to_positions(of_factors[..., width:], p, y)
    return project(of_signal, g, y)


def _filter_in_full(
    t: Tensor, p: Tensor, g: Tensor, weight: Tensor, stable: bool
) -> Tensor:
    """Filter by A itself, where it is no larger than its factors."""
    half = t.mT @ p
    affinity = half + half.mT  # (B, N, N)
    filtered = [g, g @ affinity]
    for order in range(2, len(weight)):
        if stable:
            c = _multiple_of_signal(order)
            filtered.append(c * g + (1 - c) * filtered[1])
        else:
            filtered.append(2 * filtered[-1] @ affinity - filtered[-2])
    return sum(project(w, signal) for w, signal in zip(weight, filtered, strict=True))
