"""Blocks that are one matrix a sample: its Gram matrix, and the matrix's application.

Where a block multiplies features by features and projects with linear maps only, all
that it needs of the N positions is ``G = X X^T / N``. The rest folds into one matrix M
and one shift a sample, and the block is ``scale x + M x + shift``: X is read twice,
nothing else of its size is made but the output, and training keeps nothing but X.
"""

import torch
from torch import Tensor

from polynl_mm.ops.half_products import wide_product
from polynl_mm.ops.own_functions import (
    apply_function,
    is_watched,
    room_for,
    with_known_signature,
    writable,
)
from polynl_mm.ops.precision import accumulate_dtype, outside_autocast
from polynl_mm.ops.products import apply_to_positions

# The symmetric product is made of this many block rows: 4 leave 10 of 16 blocks.
_BLOCKS = 4
# Narrower blocks cost more in started products than symmetry saves.
_MIN_BLOCK = 64
# Half types are summed in float32, this many positions of all samples at a time and at
# least a fourth of it of each, so that no float32 copy of the whole input is made.
_HALF_CHUNK = 1024


def gram(
    x: Tensor, *, with_mean: bool = False, is_applied: bool = False
) -> tuple[Tensor, Tensor]:
    """Return X X^T / N, making the blocks on and above its diagonal only.

    Args:
        x (Tensor): Features, (B, C, N).
        with_mean (bool): Return the Gram matrix of X with a row of ones below it: the
            mean over positions is then the last column, less its last element.
        is_applied (bool): The features that are returned go to :func:`apply_matrix`
            and nowhere else: the gradient that comes from there is written into.

    Returns:
        tuple[Tensor, Tensor]: The Gram matrix, (B, C, C) or (B, C + 1, C + 1), in
        float32 or better; and ``x``, to go on with, so that in the backward pass what
        comes from there and what comes through the Gram matrix meet in one product.
    """
    return apply_function(_Gram, x, with_mean, is_applied)


def symmetric_share(channels: int) -> float:
    """Return the share of a full C x C x N product that :func:`gram` makes.

    Args:
        channels (int): C.

    Returns:
        float: 0.625 for wide features, 1 for narrow ones.
    """
    size = _block_size(channels)
    starts = range(0, channels, size)
    return sum(min(size, channels - s) * (channels - s) for s in starts) / channels**2


def apply_matrix(
    x: Tensor,
    matrix: Tensor,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
) -> Tensor:
    """Return ``scale x + matrix x + shift``, accumulated in one buffer.

    Args:
        x (Tensor): Features, (B, C, N).
        matrix (Tensor): One a sample, (B, C, C).
        scale (Tensor, optional): One number, (1,). None: 0, no residual.
        shift (Tensor, optional): (B, C). None: 0.

    Returns:
        Tensor: (B, C, N), of the type of ``x``.
    """
    # The scale's gradient is a sum over all features: it keeps its type for that.
    matrix, shift = (None if t is None else t.to(x.dtype) for t in (matrix, shift))
    return apply_function(_ApplyMatrix, x, matrix, scale, shift)


def with_bias(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Return a projection of features that have a row of ones below them.

    Args:
        weight (Tensor): (K, C).
        bias (Tensor, optional): (K,). None: zeros.
        dtype (torch.dtype): The type of the result.

    Returns:
        Tensor: The weight with the bias as its last column, (K, C + 1).
    """
    if bias is None:
        bias = weight.new_zeros(weight.shape[0])
    return torch.cat([weight.to(dtype), bias.to(dtype).unsqueeze(1)], dim=1)


@with_known_signature
class _Gram(torch.autograd.Function):
    """A function of its own because autograd, which does not know that both factors
    are one, would make two products in the backward pass where one does.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, with_mean: bool, is_applied: bool) -> tuple[Tensor, Tensor]:
        return make_gram(x, with_mean), x.view_as(x)

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
        x, ctx.with_mean, ctx.is_applied = inputs
        ctx.save_for_backward(x)
        ctx.set_materialize_grads(False)

    @staticmethod
    @outside_autocast
    def backward(
        ctx, grad: Tensor | None, grad_x: Tensor | None
    ) -> tuple[Tensor | None, None, None]:
        (x,) = ctx.saved_tensors
        if grad is None:
            return grad_x, None, None
        # Not where it is differentiated again, or is another's by then.
        is_own = ctx.is_applied and not (torch.is_grad_enabled() or is_watched(x))
        of_x = _gradient_of_gram(x, grad, grad_x, ctx.with_mean, is_own)
        return of_x, None, None


def make_gram(x: Tensor, with_mean: bool = False) -> Tensor:
    """Return what :func:`gram` does, of which autograd knows the operations only."""
    dtype = accumulate_dtype(x)
    if x.is_cuda:
        # One product: its blocks would be started one after the other, and read
        # the features as often.
        total = wide_product(x, x.mT)
    elif x.dtype == dtype:
        total = _symmetric_product(x)
    else:
        size = max(_HALF_CHUNK // max(1, x.shape[0]), _HALF_CHUNK // 4)
        chunks = x.split(size, dim=2)
        total = sum(_symmetric_product(chunk.to(dtype)) for chunk in chunks)
    product = total / x.shape[2]
    if with_mean:
        mean = x.sum(dim=2, keepdim=True, dtype=dtype) / x.shape[2]
        one = mean.new_ones(x.shape[0], 1, 1)
        below = torch.cat([mean.mT, one], dim=2)  # (B, 1, C + 1)
        product = torch.cat([torch.cat([product, mean], dim=2), below], dim=1)
    return product


def _gradient_of_gram(
    x: Tensor, grad: Tensor, grad_x: Tensor | None, with_mean: bool, is_own: bool
) -> Tensor:
    """Return what comes to X through its Gram matrix, and what came otherwise."""
    of_product, of_mean = ((grad + grad.mT) / x.shape[2]).to(x.dtype), None
    if with_mean:
        sizes = (x.shape[1], 1)
        of_product, of_mean = of_product.split(sizes, dim=1)[0].split(sizes, dim=2)
    if is_own and grad_x is not None:
        of_x = room_for(grad_x, of_product).baddbmm_(of_product, x)
    else:
        of_x = apply_to_positions(of_product, x, grad_x)
    return of_x if of_mean is None else of_x.add_(of_mean)


@with_known_signature
class _ApplyMatrix(torch.autograd.Function):
    """Autograd would hold a buffer of the features' size for each term of the sum."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, matrix: Tensor, scale: Tensor | None, shift: Tensor | None
    ) -> Tensor:
        return writable(accumulate(x, matrix, scale, shift))

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:3])  # the shift has no part in any gradient

    @staticmethod
    @outside_autocast
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, matrix, scale = ctx.saved_tensors
        needs_x, needs_matrix, needs_scale, needs_shift = ctx.needs_input_grad
        grad_x = grad_matrix = grad_scale = grad_shift = None
        if needs_x:
            grad_x = accumulate(grad, matrix.mT, scale, None)
        if needs_matrix or needs_scale:
            grad_matrix = grad @ x.mT
        if needs_scale:
            # The sum of grad * x, without that product.
            diagonals = grad_matrix.to(accumulate_dtype(x)).diagonal(dim1=1, dim2=2)
            grad_scale = diagonals.sum().reshape(scale.shape).to(scale.dtype)
        if needs_shift:
            grad_shift = grad.sum(dim=2)
        return grad_x, grad_matrix, grad_scale, grad_shift


def accumulate(
    x: Tensor, matrix: Tensor, scale: Tensor | None, shift: Tensor | None = None
) -> Tensor:
    """Return what :func:`apply_matrix` does, of which autograd knows as much."""
    if scale is None:
        y = apply_to_positions(matrix, x)
        if shift is None:
            return y
        shift = shift.unsqueeze(2)
        # What a function writes in place and returns has no gradient where torch 2.11
        # compiles it.
        if torch.compiler.is_compiling():
            return y + shift
        return room_for(y, shift).add_(shift)
    if x.dtype == accumulate_dtype(x) and not torch.jit.is_tracing():
        # The residual is a diagonal of the matrix: features are read and written once.
        matrix = room_for(matrix.clone(), scale)
        matrix.diagonal(dim1=1, dim2=2).add_(scale.to(x.dtype))
        return accumulate(x, matrix, None, shift)
    y = scale.to(x.dtype) * x
    if shift is not None:
        y = room_for(y, shift).add_(shift.unsqueeze(2))
    if torch.compiler.is_compiling():
        return apply_to_positions(matrix, x, y)
    return room_for(y, matrix).baddbmm_(matrix, x)


def _symmetric_product(x: Tensor) -> Tensor:
    channels = x.shape[-2]
    size = _block_size(channels)
    if size >= channels:
        return x @ x.mT
    product = x.new_empty(*x.shape[:-1], channels)
    for start in range(0, channels, size):
        stop = min(start + size, channels)
        rows = product[..., start:stop, start:]  # (..., size, rest)
        rows.baddbmm_(x[..., start:stop, :], x[..., start:, :].mT, beta=0)
        product[..., stop:, start:stop] = rows[..., stop - start :].mT
    return product


def _block_size(channels: int) -> int:
    return max(-(-channels // _BLOCKS), _MIN_BLOCK)
