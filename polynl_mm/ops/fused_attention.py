"""The softmax average at once: by torch's fused attention, or with its affinity."""

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from polynl_mm.ops.own_functions import (
    differentiable_gradients,
    is_forward_mode,
    is_transformed,
)
from polynl_mm.ops.precision import accumulate_dtype, cast, outside_autocast


def gaussian_in_full(theta: Tensor, phi: Tensor, g: Tensor, factor: float) -> Tensor:
    """Return the softmax average by its N x M affinity.

    Args:
        theta (Tensor): (B, K, N).
        phi (Tensor): (B, K, M).
        g (Tensor): (B, V, M).
        factor (float): Of the similarities.

    Returns:
        Tensor: (B, V, N).
    """
    query, key = cast(accumulate_dtype(theta), theta, phi)
    affinity = ((query * factor).mT @ key).softmax(dim=2)  # (B, N, M)
    return g @ affinity.to(g.dtype).mT


def has_fused_kernel(theta: Tensor, phi: Tensor, g: Tensor) -> bool:
    """Return whether fused attention serves these widths, this type, and who looks on.

    Where it does not, ``scaled_dot_product_attention`` makes the N x N affinity
    without a word: on CPU where values and queries differ in width (measured), on
    CUDA in float64. In float32 its kernel on CUDA leaves tensor cores idle, and takes
    2.6 times as long as two products in TF32 (measured, N = 6272); compiled, it is
    better than all chunks written out. It has no tangents and, within ``torch.func``,
    no second derivatives.

    Args:
        theta (Tensor): (B, K, N).
        phi (Tensor): (B, K, M).
        g (Tensor): (B, V, M).

    Returns:
        bool: Whether :func:`gaussian_fused` is to be taken.
    """
    if is_transformed() or is_forward_mode(theta, phi, g):
        return False
    if theta.is_cuda:
        exact = theta.dtype == torch.float32 and not torch.compiler.is_compiling()
        return theta.dtype != torch.float64 and not exact
    return theta.device.type == "cpu" and theta.shape[1] == g.shape[1]


def gaussian_fused(
    theta: Tensor, phi: Tensor, g: Tensor, factor: float, *, again: bool = False
) -> Tensor:
    """Return the softmax average by fused attention.

    Args:
        theta (Tensor): (B, K, N).
        phi (Tensor): (B, K, M).
        g (Tensor): (B, V, M).
        factor (float): Of the similarities.
        again (bool): Its gradients may be differentiated again, which torch's are not.

    Returns:
        Tensor: (B, V, N).
    """
    again = again and not (torch.compiler.is_compiling() or torch.jit.is_tracing())
    width = g.shape[1]
    if theta.is_cuda:
        # Its kernels load rows of whole 16-byte words.
        theta, phi, g = (pad(t, (0, 0, 0, -t.shape[1] % 8)) for t in (theta, phi, g))
    # Contiguous rows, or the CPU's kernel does not serve.
    query, key, value = (t.mT.contiguous().unsqueeze(1) for t in (theta, phi, g))
    if again:
        *rows, of_output = _DifferentiatedAgain.apply(factor, query, key, value)
        query, key, value = rows
    y = scaled_dot_product_attention(query, key, value, scale=factor)  # (B, 1, N, V)
    if again:
        y = _HandsBack.apply(y, of_output)
    return y.squeeze(1)[..., :width].mT.contiguous()


class _DifferentiatedAgain(torch.autograd.Function):
    """Replaces the gradients of fused attention, where they get gradients themselves.

    Stands before it, with one output more, of which :class:`_HandsBack` makes the
    gradient that of the attention's output. Else all pass through, and nothing more is
    kept: of what it saves fused attention saves the same (hooks on saved tensors see
    both).
    """

    @staticmethod
    def forward(
        ctx, factor: float, query: Tensor, key: Tensor, value: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.factor = factor
        ctx.save_for_backward(query, key, value)
        shape = (*query.shape[:-1], value.shape[-1])
        of_output = value.new_zeros(()).expand(shape)  # no memory
        return *(t.view_as(t) for t in (query, key, value)), of_output

    @staticmethod
    @outside_autocast
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        *plain, grad = gradients
        if not torch.is_grad_enabled():
            return None, *plain

        def attend(*rows: Tensor) -> Tensor:
            query, key, value = (t.squeeze(1).mT for t in rows)
            return gaussian_in_full(query, key, value, ctx.factor).mT.unsqueeze(1)

        return None, *differentiable_gradients(attend, ctx.saved_tensors, grad)


class _HandsBack(torch.autograd.Function):
    """Gives the gradient of an output to another tensor, too."""

    @staticmethod
    def forward(ctx, y: Tensor, of_output: Tensor) -> Tensor:
        return y.view_as(y)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        return grad, grad
