"""The blocks whose published form is linear in N already, kept so in half types too.

Each function equals the function of its name in ``reference``.
"""

import math

import torch
from torch import Tensor

from polynl_mm.ops.precision import (
    accumulate_dtype,
    cast,
    compute_dtype,
    without_autocast,
)
from polynl_mm.ops.products import thin_product
from polynl_mm.ops.summaries import Holder, softmax_average


def double_attention(
    theta: Tensor, phi: Tensor, g: Tensor, *, others: Holder | None = None
) -> Tensor:
    """Gather the features into a few maps, then hand these out to every position.

    It is :func:`efficient_attention` of one head, published before it. Source: Chen
    et al., "A^2-Nets: Double Attention Networks", NeurIPS 2018, where theta is V, phi
    is B and g is A.

    Args:
        theta (Tensor): Distribution logits, (B, K, N).
        phi (Tensor): Gathering logits, (B, K, M).
        g (Tensor): Features, (B, V, M).
        others (Holder, optional): Who holds the other positions of these clips.

    Returns:
        Tensor: ``g softmax_positions(phi)^T softmax_channels(theta)``, (B, V, N).
    """
    return efficient_attention(theta, phi, g, others=others)


def efficient_attention(
    theta: Tensor,
    phi: Tensor,
    g: Tensor,
    *,
    heads: int = 1,
    others: Holder | None = None,
) -> Tensor:
    """Attend through a product of two softmaxes, one over channels, one over positions.

    Source: Shen et al., "Efficient Attention: Attention with Linear Complexities",
    WACV 2021.

    Args:
        theta (Tensor): Queries, (B, K, N).
        phi (Tensor): Keys, (B, K, M).
        g (Tensor): Values, (B, V, M).
        heads (int): Equal groups of channels, each attending alone.
        others (Holder, optional): Who holds the other positions of these clips.

    Returns:
        Tensor: (B, V, N).

    Raises:
        ValueError: If ``heads`` does not divide K and V.
    """
    _check_divides("heads", heads, theta.shape[1])
    _check_divides("heads", heads, g.shape[1])
    theta, phi, g = cast(compute_dtype(theta, phi, g), theta, phi, g)
    with without_autocast(g):
        query, key, value = (
            t.unflatten(1, (heads, -1)).flatten(0, 1) for t in (theta, phi, g)
        )  # (B heads, K / heads, N)
        query = query.softmax(dim=1)
        if others is None:
            key, value = _position_softmax(key, value)
            y = thin_product(value, key, query)
        else:
            wide = cast(accumulate_dtype(key), key, value)
            y = softmax_average(*wide, others).to(query.dtype) @ query
        return y.unflatten(0, (g.shape[0], heads)).flatten(1, 2)


def global_context(
    logits: Tensor, x: Tensor, *, others: Holder | None = None
) -> Tensor:
    """Average the features over all positions by the softmax of their logits.

    Source: Cao et al., "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and
    Beyond", 2019: the context of the GC block, before its transform.

    Args:
        logits (Tensor): One logit a position, (B, 1, N).
        x (Tensor): Features, (B, C, N).
        others (Holder, optional): Who holds the other positions of these clips.

    Returns:
        Tensor: The context, the same for every query, (B, C, 1).
    """
    logits, x = cast(compute_dtype(logits, x), logits, x)
    with without_autocast(x):
        if others is not None:
            wide = cast(accumulate_dtype(x), logits, x)
            return softmax_average(*wide, others).to(x.dtype)
        weights, x = _position_softmax(logits, x)
        return x @ weights.mT


def _position_softmax(logits: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Return softmax weights and values whose products are to be summed.

    In float16 a factor moves from the values to the weights: the share of one position
    of a long clip is below that type's normal numbers.
    """
    weights = logits.softmax(dim=2, dtype=accumulate_dtype(logits))
    if logits.dtype == torch.float16:
        root = logits.shape[2] ** 0.5
        weights, values = weights * root, values / root
    return weights.to(logits.dtype), values


def compact_generalized_dot(
    theta: Tensor,
    phi: Tensor,
    g: Tensor,
    *,
    groups: int = 1,
    scale: bool = False,
    others: Holder | None = None,
) -> Tensor:
    """Scale theta, in each group, by the inner product of phi and g.

    That is the non-local sum over positions and channels with the dot-product kernel.
    Source: Yue et al., "Compact Generalized Non-local Network", NeurIPS 2018.

    Args:
        theta (Tensor): Queries, (B, K, N).
        phi (Tensor): Keys, (B, K, N).
        g (Tensor): Values, (B, K, N).
        groups (int): Equal groups of channels, each for itself.
        scale (bool): Divide by the root of a group's elements, K N / groups.
        others (Holder, optional): Who holds the other positions of these clips.

    Returns:
        Tensor: (B, K, N), in float32 or better under autocast, too: the product grows
        with K N and leaves float16's range at the usual magnitudes.

    Raises:
        ValueError: If ``groups`` does not divide K.
    """
    with without_autocast(g):
        theta, phi, g = _split_wide(theta, phi, g, groups)
        moments, divisor = _of_all([_inner_product(phi, g)], theta, scale, others)
        moment = moments[0] / divisor
        return (moment * theta).flatten(1, 2)


def compact_generalized_rbf(
    theta: Tensor,
    phi: Tensor,
    g: Tensor,
    *,
    groups: int = 1,
    scale: bool = False,
    order: int = 3,
    gamma: float = 1e-4,
    others: Holder | None = None,
) -> Tensor:
    """Sum, in each group, powers of theta times inner products of powers of phi and g.

    That is the non-local sum over positions and channels with the Taylor form of the
    RBF kernel. Source: Yue et al., "Compact Generalized Non-local Network", NeurIPS
    2018.

    Args:
        theta (Tensor): Queries, (B, K, N).
        phi (Tensor): Keys, (B, K, N).
        g (Tensor): Values, (B, K, N).
        groups (int): Equal groups of channels, each for itself.
        scale (bool): Divide by the root of a group's elements, K N / groups.
        order (int): The highest power in the series.
        gamma (float): The kernel's width.
        others (Holder, optional): Who holds the other positions of these clips.

    Returns:
        Tensor: (B, K, N), in float32 or better under autocast, too.

    Raises:
        ValueError: If ``groups`` does not divide K.
    """
    beta = math.exp(-2 * gamma)
    series = [
        beta * (2 * gamma) ** power / math.factorial(power)
        for power in range(order + 1)
    ]
    with without_autocast(g):
        theta, phi, g = _split_wide(theta, phi, g, groups)
        moments = [g.sum(dim=(2, 3), keepdim=True)]
        for power in range(1, order + 1):
            g = g * phi if power > 1 else g
            moments.append(_inner_product(phi, g))
        moments, divisor = _of_all(moments, theta, scale, others)
        moments = [m * (c / divisor) for c, m in zip(series, moments, strict=True)]
        y = moments[-1].expand_as(theta)
        for moment in moments[-2::-1]:
            y = torch.addcmul(moment, y, theta)
        return y.flatten(1, 2)


def _split_wide(
    theta: Tensor, phi: Tensor, g: Tensor, groups: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the inputs in float32 or better, (B, groups, K / groups, N)."""
    _check_divides("groups", groups, theta.shape[1])
    wide = cast(accumulate_dtype(theta, phi, g), theta, phi, g)
    return tuple(t.unflatten(1, (groups, -1)) for t in wide)


def _inner_product(phi: Tensor, g: Tensor) -> Tensor:
    """Return each group's inner product, (B, groups, 1, 1)."""
    # By channel first: no product of their size is made, and shorter sums round less.
    by_channel = torch.einsum("bgcn,bgcn->bgc", phi, g)
    return by_channel.sum(dim=2).unflatten(1, (-1, 1, 1))


def _of_all(
    moments: list[Tensor], theta: Tensor, scale: bool, others: Holder | None
) -> tuple[list[Tensor], float | Tensor]:
    """Return the moments over all positions, and what they are divided by."""
    elements = theta.shape[2] * theta.shape[3]
    if others is not None:
        number = theta.new_tensor([float(elements)])
        *moments, elements = others.sum(*moments, number)
    return moments, elements**0.5 if scale else 1.0


def _check_divides(name: str, parts: int, channels: int) -> None:
    if parts < 1 or channels % parts:
        raise ValueError(
            f"{name}={parts} does not divide {channels} channels into equal parts."
        )
