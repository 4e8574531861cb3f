"""Products of half-precision features: sums in float32, and no float32 copy of them.

A sum over many positions in a half type forgets what it adds; a float32 copy of the
features takes twice their memory, and keeps tensor cores idle. So matrix products are
told to give float32 where they can (CUDA), and else a few positions are widened at a
time, never all. Features in float32 or float64 take the plain way.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from polynl_mm.ops.own_functions import (
    apply_function,
    is_transformed,
    is_watched,
    wants_gradients,
    with_known_signature,
)
from polynl_mm.ops.precision import accumulate_dtype, outside_autocast

# torch 2.8 and later: torch.bmm(..., out_dtype=torch.float32), on CUDA.
_BMM_WIDENS = hasattr(torch.ops.aten.bmm, "dtype")
# Numbers that are widened at a time, and the fewest positions: what a cache holds. A
# GPU takes more at a time, or waits for the start of each.
_WIDENED, _WIDENED_ON_GPU = 2**16, 2**24
_FEWEST = 64
# Of a square product whose diagonal is wanted, so many rows at a time: a tile of a GPU.
_TILE = 128


def wide_product(left: Tensor, right: Tensor) -> Tensor:
    """Return ``left @ right``, summed and returned in float32 or better.

    Args:
        left (Tensor): (B, M, N).
        right (Tensor): (B, N, K), of the type of ``left``.

    Returns:
        Tensor: (B, M, K); float64 for float64, else float32.
    """
    dtype = accumulate_dtype(left)
    if left.dtype == dtype:
        return torch.bmm(left, right)
    if _widens(left, right):
        return torch.bmm(left, right, out_dtype=dtype)
    size = chunk_size(left)
    chunks = zip(left.split(size, dim=2), right.split(size, dim=1), strict=True)
    products = None
    for a, b in chunks:
        a, b = a.to(dtype), b.to(dtype)
        products = torch.bmm(a, b) if products is None else products.baddbmm(a, b)
    return products


def _widens(left: Tensor, right: Tensor) -> bool:
    """Return whether a product of half types can be told to give float32.

    That operation has no derivative, no tangent and no rule for vmap: in the graph of
    others it cannot stand.
    """
    if not (left.is_cuda and _BMM_WIDENS):
        return False
    return torch.compiler.is_compiling() or not (
        torch.jit.is_tracing()
        or is_watched(left, right)
        or wants_gradients(left, right)
    )


def mean_of_products(left: Tensor, right: Tensor) -> Tensor:
    """Return the mean over positions of ``left * right``, in float32 or better.

    Args:
        left (Tensor): (..., N).
        right (Tensor): Of the same shape and type.

    Returns:
        Tensor: (...), differentiable, as often as wanted.
    """
    if left.dtype == accumulate_dtype(left) or torch.compiler.is_compiling():
        dtype = accumulate_dtype(left)  # a compiler makes no copy of it
        return (left.to(dtype) * right.to(dtype)).mean(dim=-1)
    return apply_function(_SumOfProducts, left, right) / left.shape[-1]


def scale_positions(x: Tensor, scale: Tensor) -> Tensor:
    """Return every position of features times a scale in another type.

    Args:
        x (Tensor): Features, (..., N).
        scale (Tensor): (...), in float32 or better.

    Returns:
        Tensor: (..., N), of the type of ``x``, each product rounded once.
    """
    if x.dtype == scale.dtype or torch.compiler.is_compiling():
        return (scale.unsqueeze(-1) * x).to(x.dtype)
    return apply_function(_Scaled, x, scale)


def add_scaled(y: Tensor | None, x: Tensor, scale: Tensor) -> Tensor:
    """Return ``y + scale x`` for one learned number, whose gradient sums in float32.

    It is a sum over all features of a batch: in float16 it would overflow before any
    other gradient, and a loss scaler would lower its scale for this one number.

    Args:
        y (Tensor, optional): What is added, of the shape of ``x``. None adds nothing.
        x (Tensor): Features of any shape.
        scale (Tensor): One number.

    Returns:
        Tensor: Of the shape and type of ``x``.
    """
    scale = scale.reshape(1)  # of no dimension, it would be rounded to the type of x
    y = None if y is None else y.to(x.dtype)
    if x.dtype == accumulate_dtype(x):
        return _add_scaled(y, x, scale.to(x.dtype))
    if torch.compiler.is_compiling():
        scaled = (scale * x).to(x.dtype)
        return scaled if y is None else y + scaled
    return apply_function(_AddScaled, y, x, scale)


def sum_of_all_products(left: Tensor, right: Tensor) -> Tensor:
    """Return the sum of ``left * right`` over all, in float32 or better.

    Args:
        left (Tensor): Features of any shape.
        right (Tensor): Of the same shape and type.

    Returns:
        Tensor: One number, of no dimension.
    """
    dtype = accumulate_dtype(left)
    # bfloat16 rounds the products as it has rounded their factors, and has their range.
    plain = left.dtype == torch.bfloat16 and not left.is_cuda
    if left.dtype == dtype or plain or left.dim() < 3:
        return (left * right).sum(dtype=dtype)
    # vmap has no views of what it has several of.
    shape = (*left.shape[:2], 1, math.prod(left.shape[2:]))  # (B, C, 1, N)
    factors = (t.reshape(shape) for t in (left, right))
    return apply_function(_SumOfProducts, *factors).sum()


def sum_of_axes(parts: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Return the sum of parts that broadcast, whose gradients sum in float32.

    Nothing of the sum's size is made in float32.

    Args:
        parts (Sequence[Tensor]): In float32 or better, of sizes that broadcast.
        dtype (torch.dtype): The type of the sum.

    Returns:
        Tensor: Of the size to which the parts broadcast.
    """
    if dtype == accumulate_dtype(parts[0]) or torch.compiler.is_compiling():
        return sum(parts[1:], parts[0]).to(dtype)
    return apply_function(_SumOfAxes, dtype, *parts)


def chunk_size(x: Tensor) -> int:
    """Return how many positions of features are widened at a time.

    Args:
        x (Tensor): (..., N).

    Returns:
        int: At least 1.
    """
    widened = _WIDENED_ON_GPU if x.is_cuda else _WIDENED
    return max(_FEWEST, widened // max(1, x.numel() // max(1, x.shape[-1])))


def sum_by_diagonals(left: Tensor, right: Tensor) -> Tensor:
    """Return the sum over positions of ``left * right``: the diagonals of products.

    On tensor cores a matrix product takes no longer than reading its factors, where its
    tiles are no larger than needed, and it sums in float32. Products of single rows, or
    of numbers in a wider type, take many times as long.

    Args:
        left (Tensor): (B, K, G, N), with more positions N than channels K.
        right (Tensor): Of the same shape and type.

    Returns:
        Tensor: (B, K, G), in float32 or better.
    """
    batch, rows, groups, _ = left.shape
    if not left.numel():
        return left.new_zeros(batch, rows, groups, dtype=accumulate_dtype(left))
    if groups > 1:
        # A sample at a time: its groups are a batch without being laid out anew.
        pairs = zip(left.transpose(1, 2), right.transpose(1, 2), strict=True)
        sums = [_diagonals(one, other) for one, other in pairs]  # (G, K) each
        return torch.stack(sums).transpose(1, 2)
    one, other = left.squeeze(2), right.squeeze(2)
    # A tile is a sample of its own, where that is a view of the features: of channels
    # that are some of more, the whole products are made.
    if rows % _TILE == 0 and all(
        t.stride(0) == rows * t.stride(1) for t in (one, other)
    ):
        tiles = (t.unflatten(1, (-1, _TILE)).flatten(0, 1) for t in (one, other))
        return _diagonals(*tiles).reshape(batch, rows, 1)
    return _diagonals(one, other).unsqueeze(2)


def _diagonals(left: Tensor, right: Tensor) -> Tensor:
    return wide_product(left, right.mT).diagonal(dim1=1, dim2=2)


@with_known_signature
class _SumOfProducts(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(left: Tensor, right: Tensor) -> Tensor:
        dtype = accumulate_dtype(left)
        long = left.dim() == 4 and left.shape[1] < left.shape[3]
        if long and left.dtype != dtype and _widens(left, right):
            return sum_by_diagonals(left, right)
        size = chunk_size(left)
        chunks = zip(left.split(size, -1), right.split(size, -1), strict=True)
        return sum((a.to(dtype) * b.to(dtype)).sum(dim=-1) for a, b in chunks)

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    @outside_autocast
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        left, right = ctx.saved_tensors
        return scale_positions(right, grad), scale_positions(left, grad)


@with_known_signature
class _Scaled(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, scale: Tensor) -> Tensor:
        scale, size = scale.unsqueeze(-1), chunk_size(x)
        seen = torch.jit.is_tracing() or is_watched(x, scale)
        if seen or is_transformed(x, scale):  # nothing is written in place
            return torch.cat([(p * scale).to(x.dtype) for p in x.split(size, -1)], -1)
        y = torch.empty_like(x)
        if x.is_cuda:
            # Multiplied in float32 and rounded on the way to memory.
            return torch.mul(x, scale, out=y)
        for part, scaled in zip(x.split(size, -1), y.split(size, -1), strict=True):
            scaled.copy_(part * scale)
        return y

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    @outside_autocast
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, scale = ctx.saved_tensors
        grad_scale = _SumOfProducts.apply(grad.to(x.dtype), x).to(scale.dtype)
        return scale_positions(grad, scale), grad_scale


@with_known_signature
class _AddScaled(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(y: Tensor | None, x: Tensor, scale: Tensor) -> Tensor:
        return _add_scaled(y, x, scale.to(x.dtype))

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:
        _, x, scale = inputs
        _, needs_x, needs_scale = ctx.needs_input_grad
        ctx.save_for_backward(x if needs_scale else None, scale if needs_x else None)
        ctx.shape, ctx.scale_dtype = scale.shape, scale.dtype

    @staticmethod
    @outside_autocast
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, scale = ctx.saved_tensors
        needs_y, needs_x, needs_scale = ctx.needs_input_grad
        grad_x = grad_scale = None
        if needs_x:
            grad_x = add_scaled(None, grad, scale)
        if needs_scale:
            total = sum_of_all_products(grad, x)
            grad_scale = total.reshape(ctx.shape).to(ctx.scale_dtype)
        return grad if needs_y else None, grad_x, grad_scale


@with_known_signature
class _SumOfAxes(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(dtype: torch.dtype, *parts: Tensor) -> Tensor:
        *few, last = parts  # the first ones together are still small
        return sum(few).to(dtype) + last.to(dtype) if few else last.to(dtype)

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:
        ctx.parts = [(part.shape, part.dtype) for part in inputs[1:]]

    @staticmethod
    @outside_autocast
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        grads = []
        for shape, dtype in ctx.parts:
            spread = [n for n, size in enumerate(shape) if size < grad.shape[n]]
            total = grad.sum(spread, keepdim=True, dtype=dtype) if spread else grad
            grads.append(total.to(dtype))
        return None, *grads


def _add_scaled(y: Tensor | None, x: Tensor, scale: Tensor) -> Tensor:
    return scale * x if y is None else torch.addcmul(y, x, scale)
