"""Poly-NL's most used forms as one function each, with gradients of their own.

A GPU waits for a block of many small operations: autograd's part in starting each takes
longer than the operation. Here a training step starts a third fewer, without views and
records between them, and with the sums arranged for that: with ``M = dy v^T`` for each
sample, the gradients of the output projection and of the moment are sums over M, which
is small, and not over positions. What is asked for a second time, or to be compiled or
traced, goes step by step (:mod:`polynl_mm.ops.poly_steps`).
"""

from functools import partial

import torch
from torch import Tensor

from polynl_mm.ops.gram import accumulate, make_gram
from polynl_mm.ops.half_products import (
    mean_of_products,
    scale_positions,
    sum_of_all_products,
    wide_product,
)
from polynl_mm.ops.poly_steps import (
    apply_folded,
    as_samples,
    gate_and_project,
    moment_direct,
    moment_gram,
)
from polynl_mm.ops.precision import accumulate_dtype, outside_autocast
from polynl_mm.ops.products import (
    apply_to_positions,
    differentiable_gradients,
    for_each,
    has_channels_last,
    project,
    with_known_signature,
)


def poly_nl_as_one(
    x: Tensor,
    theta: Tensor,
    phi: Tensor,
    out: Tensor,
    g: Tensor | None,
    alpha: Tensor | None,
    residual: Tensor | None,
    schedule: str,
    folds: bool,
) -> Tensor | None:
    """Compute Poly-NL by one function, where it is a form that has one.

    Args:
        x (Tensor): Features, (B, C, G, N), in the type of large products.
        theta (Tensor): (K, C), as the other weights in any type.
        phi (Tensor): (K, C).
        out (Tensor): (C, K).
        g (Tensor, optional): (K, C).
        alpha (Tensor, optional): (1,).
        residual (Tensor, optional): (1,).
        schedule (str): ``'direct'`` or ``'gram'``.
        folds (bool): Whether the gate goes into the output projection.

    Returns:
        Tensor | None: Of the shape and type of ``x``; None for another form, or where
        the operations are to be seen one by one.
    """
    if torch.jit.is_tracing() or torch.compiler.is_compiling():
        return None
    groups, positions = x.shape[2:]
    if schedule == "gram" and folds:
        samples = as_samples(x)
        y, *_ = _ByGram.apply(samples, theta, phi, out, g, alpha, residual)
        return y.unflatten(0, (x.shape[0], groups)).transpose(1, 2)
    # M is no larger than the features.
    small = groups == 1 and out.shape[1] <= positions
    if schedule == "direct" and not folds and g is not None and small:
        y, *_ = _Direct.apply(x.squeeze(2), theta, phi, out, g, alpha, residual)
        return y.unsqueeze(2)
    return None


@with_known_signature
class _ByGram(torch.autograd.Function):
    """The moment from the Gram matrix, and the gate in the output projection."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor,
        theta: Tensor,
        phi: Tensor,
        out: Tensor,
        g: Tensor | None,
        alpha: Tensor | None,
        residual: Tensor | None,
    ) -> tuple[Tensor, ...]:
        dtype = accumulate_dtype(x)
        product = make_gram(x)  # (B, C, C)
        projected = torch.bmm(for_each(theta.to(dtype), product), product)  # (B, K, C)
        moment = (projected * phi.to(dtype)).sum(dim=2)  # (B, K)
        matrix = out.to(dtype) * _scaled(moment, alpha).unsqueeze(1)  # (B, C, K)
        if g is not None:
            matrix = matrix @ g.to(dtype)
        matrix = matrix.to(x.dtype)  # (B, C, C)
        return accumulate(x, matrix, residual), product, projected, moment, matrix

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*inputs, *output[1:])
        ctx.set_materialize_grads(False)

    @staticmethod
    @outside_autocast
    def backward(ctx, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,) * 7
        *inputs, product, projected, moment, matrix = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again
            again = partial(_step_by_step, schedule="gram")
            return differentiable_gradients(again, inputs, grad)
        x, theta, phi, out, g, alpha, residual = inputs
        dtype = product.dtype
        theta, phi, out = (t.to(dtype) for t in (theta, phi, out))
        scaled = _scaled(moment, alpha).unsqueeze(1)  # (B, 1, K)
        of_matrix = _products(grad, x)  # (B, C, C)
        of_g = of_residual = None
        if residual is not None:  # the sum of grad * x, without that product
            of_residual = of_matrix.diagonal(dim1=1, dim2=2).sum().reshape(1)
        if g is not None:
            folded = out * scaled  # (B, C, K)
            of_g = torch.bmm(folded.mT, of_matrix).sum(dim=0)
            of_matrix = of_matrix @ g.to(dtype).mT  # (B, C, K)
        of_out = (of_matrix * scaled).sum(dim=0)
        of_moment, of_alpha = _unscaled((of_matrix * out).sum(dim=1), moment, alpha)
        of_moment = of_moment.unsqueeze(2)  # (B, K, 1)
        of_projected = of_moment * phi  # (B, K, C)
        of_theta = torch.bmm(of_projected, product).sum(dim=0)  # it is symmetric
        of_phi = (of_moment * projected).sum(dim=0)
        of_product = torch.bmm(for_each(theta.mT, product), of_projected)
        of_product = ((of_product + of_product.mT) / x.shape[2]).to(x.dtype)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = accumulate(grad, matrix.mT, residual)
            of_x = apply_to_positions(of_product, x, of_x)
        return of_x, of_theta, of_phi, of_out, of_g, of_alpha, of_residual


@with_known_signature
class _Direct(torch.autograd.Function):
    """The moment from two projections, which gates a third one."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor,
        theta: Tensor,
        phi: Tensor,
        out: Tensor,
        g: Tensor,
        alpha: Tensor | None,
        residual: Tensor | None,
    ) -> tuple[Tensor, ...]:
        weight = torch.cat([theta, phi, g]).to(x.dtype)
        projected = project(weight, x)  # (B, 3 K, N)
        first, second, value = projected.chunk(3, dim=1)
        moment = mean_of_products(first.unsqueeze(2), second.unsqueeze(2)).squeeze(2)
        y = project(out.to(x.dtype), scale_positions(value, _scaled(moment, alpha)))
        if residual is not None:
            y = torch.addcmul(y, x, residual.to(x.dtype))
        return y, projected, moment, weight

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*inputs, *output[1:])
        ctx.set_materialize_grads(False)

    @staticmethod
    @outside_autocast
    def backward(ctx, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,) * 7
        *inputs, projected, moment, weight = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again
            again = partial(_step_by_step, schedule="direct")
            return differentiable_gradients(again, inputs, grad)
        x, _, _, out, _, alpha, residual = inputs
        needs_x, *needs = ctx.needs_input_grad
        out = out.to(moment.dtype)
        scaled = _scaled(moment, alpha).unsqueeze(1)  # (B, 1, K)
        first, second, value = projected.chunk(3, dim=1)
        of_gated = _products(grad, value)  # (B, C, K), less what they are scaled by
        of_out = (of_gated * scaled).sum(dim=0)
        of_moment, of_alpha = _unscaled((of_gated * out).sum(dim=1), moment, alpha)
        of_moment = of_moment / x.shape[2]
        back = for_each(out.to(x.dtype).mT, x)
        of_value = scale_positions(apply_to_positions(back, grad), scaled.squeeze(1))
        of_first = scale_positions(second, of_moment)
        of_second = scale_positions(first, of_moment)
        of_projected = _side_by_side(of_first, of_second, of_value, like=x)
        of_x = of_weight = of_residual = None
        if needs_x:
            kept = None if residual is None else residual.to(x.dtype) * grad
            of_x = apply_to_positions(for_each(weight.mT, x), of_projected, kept)
        if any(needs):
            of_weight = _products(of_projected, x).sum(dim=0).chunk(3)
            if residual is not None:
                of_residual = sum_of_all_products(grad, x).reshape(1)
        of_theta, of_phi, of_g = of_weight or (None, None, None)
        return of_x, of_theta, of_phi, of_out, of_g, of_alpha, of_residual


def _step_by_step(
    x: Tensor,
    theta: Tensor,
    phi: Tensor,
    out: Tensor,
    g: Tensor | None,
    alpha: Tensor | None,
    residual: Tensor | None,
    schedule: str,
) -> Tensor:
    """Compute the same by operations that autograd knows: (B, C, N) -> as x."""
    x = x.unsqueeze(2)
    moments = moment_gram if schedule == "gram" else moment_direct
    moment, features = moments(x, theta, phi, None, None)
    moment = _scaled(moment, alpha)
    if schedule == "gram":
        y = apply_folded(features, moment, out, g, None, None, residual)
    else:
        y = gate_and_project(features, moment, out, g, None, None)
        y = y if residual is None else torch.addcmul(y, x, residual.to(x.dtype))
    return y.squeeze(2)


def _side_by_side(*parts: Tensor, like: Tensor) -> Tensor:
    """Return all channels of (B, K, N), laid out as the features are."""
    if has_channels_last(like):
        return torch.cat([part.mT for part in parts], dim=2).mT
    return torch.cat(parts, dim=1)


def _scaled(moment: Tensor, alpha: Tensor | None) -> Tensor:
    return moment if alpha is None else moment * alpha.to(moment.dtype)


def _unscaled(
    grad: Tensor, moment: Tensor, alpha: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Return the gradients of the moment, and of alpha, from that of their product."""
    if alpha is None:
        return grad, None
    return grad * alpha.to(grad.dtype), (grad * moment).sum().reshape(1)


def _products(left: Tensor, right: Tensor) -> Tensor:
    """Return left right^T for (B, *, N), in float32 or better."""
    if left.is_cuda or left.dtype == torch.float16:
        return wide_product(left, right.mT)
    return (left @ right.mT).to(accumulate_dtype(left))
