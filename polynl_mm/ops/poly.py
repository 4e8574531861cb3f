"""Poly-NL at linear cost: its schedules, and the count that chooses between them.

The block gates each position by a global moment and projects the result::

    moment_k = mean_j (theta x_j)_k (phi x_j)_k          (K numbers a sample)
    y_i      = out (moment * g x_i)

There are two ways to the moment. ``direct`` projects every position twice and
averages the products. ``gram`` uses that the moment is the diagonal of
``theta G phi^T`` with ``G = X X^T / N``: the positions are read once, by one product
of which symmetry saves nearly half, and for the backward pass nothing but X is kept.

There are two ways from it. Where there are more positions than channels, the gate is
folded into the output projection, ``(out diag(moment)) g x_i``: one small matrix a
sample, applied together with the residual. Else the features are gated.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from polynl_mm.ops.gram import apply_matrix, gram, symmetric_share, with_bias
from polynl_mm.ops.half_products import (
    add_scaled,
    mean_of_products,
    scale_positions,
)
from polynl_mm.ops.precision import accumulate_dtype, compute_dtype, without_autocast
from polynl_mm.ops.products import for_each, project
from polynl_mm.ops.summaries import Holder, mean_of_all

Schedule = Literal["auto", "direct", "gram"]
SCHEDULES: tuple[Schedule, ...] = ("auto", "direct", "gram")
# Of theta, phi, out and g; None is no bias.
Biases = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]
NO_BIASES: Biases = (None, None, None, None)


def poly_nl(
    x: Tensor,
    theta: Tensor,
    phi: Tensor,
    out: Tensor,
    g: Tensor | None = None,
    *,
    residual: Tensor | None = None,
    schedule: Schedule = "auto",
    biases: Biases = NO_BIASES,
    moment_norm: Callable[[Tensor], Tensor] | None = None,
    others: Holder | None = None,
) -> Tensor:
    """Compute Poly-NL, exactly, in time and memory linear in the positions.

    Equal to :func:`polynl_mm.ops.reference.poly_nl` up to rounding. Source: Babiloni
    et al., "Poly-NL: Linear Complexity Non-local Layers with 3rd Order Polynomials",
    ICCV 2021; the ``gram`` schedule is ours. Sums over positions accumulate in
    float32 or better, under autocast too.

    Args:
        x (Tensor): Features, (B, C, N), or (B, C, G, N) for G groups of N positions
            that do not see one another.
        theta (Tensor): First projection, (K, C).
        phi (Tensor): Second projection, (K, C).
        out (Tensor): Output projection, (C, K).
        g (Tensor, optional): Projection of the gated features, (K, C). None is the
            identity and needs K = C.
        residual (Tensor, optional): What ``x`` is multiplied by before it is added,
            one number, (1,). None adds nothing.
        schedule (str): ``'direct'``, ``'gram'``, or ``'auto'`` for the one with the
            lower count of :func:`count_operations`.
        biases (tuple[Tensor | None, ...]): Biases of the four projections: of theta,
            (K,), phi, (K,), out, (C,), and g, (K,).
        moment_norm (Callable, optional): What is made of the moment, (B, G, K), before
            it gates.
        others (Holder, optional): Who holds the other positions of these clips.

    Returns:
        Tensor: Of the shape of ``x``; without a residual, of the type in which the
        products are made, else of the type of ``x``.

    Raises:
        ValueError: If the schedule is none of the three.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule is one of {SCHEDULES}, not {schedule!r}.")
    if x.dim() == 3:
        x = x.unsqueeze(2)
        y = poly_nl(
            x,
            theta,
            phi,
            out,
            g,
            residual=residual,
            schedule=schedule,
            biases=biases,
            moment_norm=moment_norm,
            others=others,
        )
        return y.squeeze(2)
    channels, positions = x.shape[1], x.shape[3]
    if schedule == "auto":
        # A trace is checked without gradients, and may be trained: one way for both.
        training = torch.is_grad_enabled() and not torch.jit.is_tracing()
        training = training and (x.requires_grad or theta.requires_grad)
        schedule = choose_schedule(channels, theta.shape[0], positions, training)
    dtype = compute_dtype(x)
    # Weights are taken to this type where they meet features: between themselves and
    # with a moment they are multiplied in float32.
    features = x.to(dtype)
    of_theta, of_phi, of_out, of_g = biases
    # Autocast multiplies in another type than the residual has.
    together = residual if dtype == x.dtype else None
    with without_autocast(x):
        moment, features = _MOMENTS[schedule](features, theta, phi, of_theta, of_phi)
        if others is not None:
            moment = mean_of_all(others, moment, positions)
        if moment_norm is not None:
            moment = moment_norm(moment)
        if positions < channels or (g is not None and channels > 2 * g.shape[0]):
            y = _gate_and_project(features, moment, out, g, of_out, of_g)
            together = None
        else:
            y = _apply_folded(features, moment, out, g, of_out, of_g, together)
        if residual is None or together is not None:
            return y
        return add_scaled(y, x, residual)


def count_operations(
    channels: int, inner: int, positions: int, training: bool
) -> dict[str, float]:
    """Count what each schedule spends on the moment of one sample.

    ``direct`` makes two products of K x C x N; training adds two more for each.
    ``gram`` makes one of C x C x N less what symmetry saves, and one of K x C x C;
    training adds one of the first kind, unsaved, and three of the second. What comes
    after the moment is the same for both and not counted.

    Args:
        channels (int): C.
        inner (int): K.
        positions (int): N.
        training (bool): Whether a backward pass will follow.

    Returns:
        dict[str, float]: Multiplications and additions by schedule.
    """
    projection = inner * channels * positions
    product = channels * channels * positions
    diagonal = inner * channels * channels
    symmetric = product * symmetric_share(channels)
    if training:
        return {"direct": 6 * projection, "gram": symmetric + product + 4 * diagonal}
    return {"direct": 2 * projection, "gram": symmetric + diagonal}


def choose_schedule(
    channels: int, inner: int, positions: int, training: bool
) -> Schedule:
    """Return the schedule with the lower :func:`count_operations`.

    Args:
        channels (int): C.
        inner (int): K.
        positions (int): N.
        training (bool): Whether a backward pass will follow.

    Returns:
        str: ``'direct'`` or ``'gram'``.
    """
    counts = count_operations(channels, inner, positions, training)
    return "direct" if counts["direct"] <= counts["gram"] else "gram"


def _moment_direct(
    x: Tensor,
    theta: Tensor,
    phi: Tensor,
    of_theta: Tensor | None,
    of_phi: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return the moment, (B, G, K), and x."""
    a, b = _project(theta, x, of_theta), _project(phi, x, of_phi)  # (B, K, G, N)
    return mean_of_products(a, b).transpose(1, 2), x


def _moment_gram(
    x: Tensor,
    theta: Tensor,
    phi: Tensor,
    of_theta: Tensor | None,
    of_phi: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return the moment, (B, G, K), and x."""
    groups = (x.shape[0], x.shape[2])
    accumulate = accumulate_dtype(x)
    biased = of_theta is not None or of_phi is not None
    product, samples = gram(_as_samples(x), with_mean=biased)
    if biased:
        # Biases are a last column of each weight, and a row of ones below X.
        theta, phi = (
            with_bias(weight, bias, accumulate)
            for weight, bias in ((theta, of_theta), (phi, of_phi))
        )
    # bmm, because a product of a matrix and a batch copies the batch transposed.
    theta = for_each(theta.to(accumulate), product)
    moment = (torch.bmm(theta, product) * phi.to(accumulate)).sum(dim=2)
    return moment.unflatten(0, groups), samples.unflatten(0, groups).transpose(1, 2)


_MOMENTS = {"direct": _moment_direct, "gram": _moment_gram}


def _as_samples(x: Tensor) -> Tensor:
    """(B, C, G, N) -> (B G, C, N), a view where G is 1."""
    return x.transpose(1, 2).flatten(0, 1)


def _project(weight: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply (K, C), and a bias, (K,), to every position of (B, C, G, N)."""
    y = project(weight.to(x.dtype), x.flatten(2))
    y = y.unflatten(2, x.shape[2:])
    return y if bias is None else y + bias.to(y.dtype)[:, None, None]


def _gate_and_project(
    x: Tensor,
    moment: Tensor,
    out: Tensor,
    g: Tensor | None,
    of_out: Tensor | None,
    of_g: Tensor | None,
) -> Tensor:
    """Return out (moment * g x): (B, C, G, N), (B, G, K) -> (B, C, G, N)."""
    value = x if g is None else _project(g, x, of_g)  # (B, K, G, N)
    gated = scale_positions(value, moment.transpose(1, 2))
    return _project(out, gated, of_out)


def _apply_folded(
    x: Tensor,
    moment: Tensor,
    out: Tensor,
    g: Tensor | None,
    of_out: Tensor | None,
    of_g: Tensor | None,
    residual: Tensor | None,
) -> Tensor:
    """Return residual x + (out diag(moment) g) x: (B, C, G, N), (B, G, K) -> as x."""
    folded = out.to(moment.dtype) * moment.flatten(0, 1).unsqueeze(1)  # (B G, C, K)
    shift = None
    if of_g is not None:
        shift = folded @ of_g.to(folded.dtype)  # (B G, C)
    if of_out is not None:
        of_out = of_out.to(folded.dtype).expand(folded.shape[:2])
        shift = of_out if shift is None else shift + of_out
    if g is not None:
        folded = folded @ g.to(folded.dtype)  # (B G, C, C)
    y = apply_matrix(_as_samples(x), folded, residual, shift)
    return y.unflatten(0, moment.shape[:2]).transpose(1, 2)
