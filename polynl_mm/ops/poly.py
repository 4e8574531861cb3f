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

from polynl_mm.ops.gram import symmetric_share
from polynl_mm.ops.half_products import add_scaled
from polynl_mm.ops.poly_as_one import poly_nl_as_one
from polynl_mm.ops.poly_steps import (
    apply_folded,
    gate_and_project,
    moment_direct,
    moment_gram,
)
from polynl_mm.ops.precision import compute_dtype, without_autocast
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
    alpha: Tensor | None = None,
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
        alpha (Tensor, optional): What the moment is multiplied by then, one number,
            (1,): K numbers a sample are, and neither a weight nor features.
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
            alpha=alpha,
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
    any_bias = any(bias is not None for bias in biases)
    # Autocast multiplies in another type than the residual has.
    together = residual if dtype == x.dtype else None
    folds = positions >= channels and (g is None or channels <= 2 * g.shape[0])
    with without_autocast(x):
        y = None
        if moment_norm is None and others is None and not any_bias:
            y = poly_nl_as_one(
                features, theta, phi, out, g, alpha, together, schedule, folds
            )
        if y is None:
            moments = moment_direct if schedule == "direct" else moment_gram
            moment, features = moments(features, theta, phi, of_theta, of_phi)
            if others is not None:
                moment = mean_of_all(others, moment, positions)
            if moment_norm is not None:
                moment = moment_norm(moment)
            if alpha is not None:
                moment = moment * alpha.to(moment.dtype)
            if folds:
                y = apply_folded(features, moment, out, g, of_out, of_g, together)
            else:
                y = gate_and_project(features, moment, out, g, of_out, of_g)
                together = None
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
