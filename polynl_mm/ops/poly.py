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
sample, and no gated features. Else the features are gated.
"""

from typing import Literal

import torch
from torch import Tensor

from polynl_mm.ops.precision import accumulate_dtype, compute_dtype, without_autocast

Schedule = Literal["auto", "direct", "gram"]
SCHEDULES: tuple[Schedule, ...] = ("auto", "direct", "gram")

# The symmetric product is made of this many block rows: 4 leave 10 of 16 blocks.
_GRAM_BLOCKS = 4
# Narrower blocks cost more in started products than symmetry saves.
_GRAM_MIN_BLOCK = 64
# Half types are summed in float32, this many positions at a time, so that no
# float32 copy of the whole input is made.
_HALF_CHUNK = 16384


def poly_nl(
    x: Tensor,
    theta: Tensor,
    phi: Tensor,
    out: Tensor,
    g: Tensor | None = None,
    *,
    schedule: Schedule = "auto",
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
        schedule (str): ``'direct'``, ``'gram'``, or ``'auto'`` for the one with the
            lower count of :func:`count_operations`.

    Returns:
        Tensor: The block without its residual, of the shape of ``x``.

    Raises:
        ValueError: If the schedule is none of the three.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule is one of {SCHEDULES}, not {schedule!r}.")
    if x.dim() == 3:
        return poly_nl(x.unsqueeze(2), theta, phi, out, g, schedule=schedule).squeeze(2)
    if schedule == "auto":
        training = torch.is_grad_enabled() and (x.requires_grad or theta.requires_grad)
        schedule = choose_schedule(x.shape[1], theta.shape[0], x.shape[3], training)
    dtype = compute_dtype(x)
    x, theta, phi, out = (t.to(dtype) for t in (x, theta, phi, out))
    with without_autocast(x):
        moment = _MOMENTS[schedule](x, theta, phi)  # (B, K, G)
        value = x if g is None else _project(g.to(dtype), x)  # (B, K, G, N)
        return _gate_and_project(moment, value, out)


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
    symmetric = product * _symmetric_share(channels)
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
    return min(counts, key=counts.get)


def _moment_direct(x: Tensor, theta: Tensor, phi: Tensor) -> Tensor:
    a, b = _project(theta, x), _project(phi, x)  # (B, K, G, N)
    accumulate = accumulate_dtype(x)
    return (a.to(accumulate) * b.to(accumulate)).mean(dim=3)


def _moment_gram(x: Tensor, theta: Tensor, phi: Tensor) -> Tensor:
    accumulate = accumulate_dtype(x)
    gram = _Gram.apply(x.transpose(1, 2))  # (B, G, C, C)
    left = theta.to(accumulate) @ gram  # (B, G, K, C)
    return (left * phi.to(accumulate)).sum(dim=3).transpose(1, 2)


_MOMENTS = {"direct": _moment_direct, "gram": _moment_gram}


def _project(weight: Tensor, x: Tensor) -> Tensor:
    """Apply (K, C) to every position of (B, C, G, N)."""
    return (weight @ x.flatten(2)).unflatten(2, x.shape[2:])


def _gate_and_project(moment: Tensor, value: Tensor, out: Tensor) -> Tensor:
    """Return out (moment * value): (B, K, G), (B, K, G, N) -> (B, C, G, N)."""
    if value.shape[3] < out.shape[0]:
        return _project(out, (moment.unsqueeze(3) * value).to(value.dtype))
    gate = moment.transpose(1, 2).unsqueeze(2)  # (B, G, 1, K)
    folded = (out.to(moment.dtype) * gate).to(value.dtype)  # (B, G, C, K)
    return (folded @ value.transpose(1, 2)).transpose(1, 2)


class _Gram(torch.autograd.Function):
    """X X^T / N over the last axis, in float32 or better: (..., C, N) -> (..., C, C).

    A function of its own because autograd, which does not know that both factors are
    one, would make two products in the backward pass where one does.
    """

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        if x.dtype == accumulate_dtype(x):
            return _symmetric_product(x) / x.shape[-1]
        chunks = x.split(_HALF_CHUNK, dim=-1)
        total = sum(
            _symmetric_product(chunk.to(accumulate_dtype(x))) for chunk in chunks
        )
        return total / x.shape[-1]

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        symmetric = ((grad + grad.mT) / x.shape[-1]).to(x.dtype)
        return symmetric @ x


def _symmetric_product(x: Tensor) -> Tensor:
    """Return x x^T, making the blocks on and above its diagonal only."""
    channels = x.shape[-2]
    size = _gram_block(channels)
    if size >= channels:
        return x @ x.mT
    product = x.new_empty(*x.shape[:-1], channels)
    for start in range(0, channels, size):
        stop = min(start + size, channels)
        rows = x[..., start:stop, :] @ x[..., start:, :].mT  # (..., size, rest)
        product[..., start:stop, start:] = rows
        product[..., stop:, start:stop] = rows[..., stop - start :].mT
    return product


def _gram_block(channels: int) -> int:
    return max(-(-channels // _GRAM_BLOCKS), _GRAM_MIN_BLOCK)


def _symmetric_share(channels: int) -> float:
    """Return the share of a full C x C x N product that the blocks make."""
    size = _gram_block(channels)
    starts = range(0, channels, size)
    return sum(min(size, channels - s) * (channels - s) for s in starts) / channels**2
