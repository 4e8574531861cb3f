"""Poly-NL's most used forms as one function each, with gradients of their own.

A GPU waits for a block of many small operations: autograd's part in starting each takes
longer than the operation. Here a training step starts a third fewer, without views and
records between them, and with the sums arranged for that: with ``M = dy v^T`` for each
sample, the gradients of the output projection and of the moment are sums over M, which
is small, and not over positions. What is asked for a second time, by a transform of
``torch.func`` or to be compiled or traced goes step by step
(:mod:`polynl_mm.ops.poly_steps`).

What is made on the way dies with the function that makes it, so that the next of its
size can take its place.
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
from polynl_mm.ops.own_functions import (
    differentiable_gradients,
    is_watched,
    wants_gradients,
    writable,
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
    for_each,
    has_channels_last,
    project,
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
        Tensor | None: Of the shape and type of ``x``; None for another form, where some
        weights are frozen, or where the operations are to be seen one by one.
    """
    weights = (theta, phi, out, g, alpha, residual)
    if torch.jit.is_tracing() or is_watched(x, *weights):
        return None
    trains = wants_gradients(x, *weights)
    if trains and not all(w is None or w.requires_grad for w in weights):
        return None  # the steps make only the gradients that are wanted
    groups, positions = x.shape[2:]
    if schedule == "gram" and folds:
        y = _apply(_ByGram, trains, as_samples(x), *weights)
        return y.unflatten(0, (x.shape[0], groups)).transpose(1, 2)
    # The gradients of the weights, one a sample, are no larger than the features.
    small = groups == 1 and 3 * out.shape[1] <= positions
    if schedule == "direct" and not folds and g is not None and small:
        return _apply(_Direct, trains, x.squeeze(2), *weights).unsqueeze(2)
    return None


def _apply(
    function: type["_ByGram"] | type["_Direct"], trains: bool, *inputs: Tensor | None
) -> Tensor:
    if trains:
        return function.apply(*inputs)
    return function.run(*inputs, keep=False)[0]


class _ByGram(torch.autograd.Function):
    """The moment from the Gram matrix, and the gate in the output projection."""

    @staticmethod
    def run(
        x: Tensor,
        theta: Tensor,
        phi: Tensor,
        out: Tensor,
        g: Tensor | None,
        alpha: Tensor | None,
        residual: Tensor | None,
        keep: bool,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        dtype = accumulate_dtype(x)
        product = make_gram(x)  # (B, C, C)
        projected = torch.bmm(for_each(theta.to(dtype), product), product)  # (B, K, C)
        moment = (projected * phi.to(dtype)).sum(dim=2)  # (B, K)
        kept = (product, projected, moment) if keep else ()
        del product, projected
        matrix = out.to(dtype) * _scaled(moment, alpha).unsqueeze(1)  # (B, C, K)
        if g is not None:
            matrix = matrix @ g.to(dtype)
        matrix = matrix.to(x.dtype)  # (B, C, C)
        return accumulate(x, matrix, residual), (*kept, matrix)

    @staticmethod
    def forward(ctx, *inputs: Tensor | None) -> Tensor:
        y, kept = _ByGram.run(*inputs, keep=True)
        ctx.save_for_backward(*inputs, *kept)
        return writable(y)

    @staticmethod
    @outside_autocast
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, product, projected, moment, matrix = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again
            again = partial(_step_by_step, schedule="gram")
            return differentiable_gradients(again, inputs, grad)
        x, theta, phi, out, g, alpha, residual = inputs
        of_matrix = _products(grad, x)  # (B, C, C)
        of_residual = None
        if residual is not None:  # the sum of grad * x, without that product
            of_residual = of_matrix.diagonal(dim1=1, dim2=2).sum().reshape(1)
        of_g = None
        if g is not None:
            of_g, of_matrix = _gradients_of_g(of_matrix, moment, out, g, alpha)
        of_out, of_moment, of_alpha = _gradients_of_gate(of_matrix, moment, out, alpha)
        del of_matrix
        of_moment = of_moment.unsqueeze(2)  # (B, K, 1)
        of_phi = (of_moment * projected).sum(dim=0)
        of_projected = of_moment * phi.to(of_moment.dtype)  # (B, K, C)
        of_theta = torch.bmm(of_projected, product).sum(dim=0)  # it is symmetric
        of_x = None
        if ctx.needs_input_grad[0]:
            of_product = for_each(theta.to(product.dtype).mT, x).bmm(of_projected)
            del of_projected
            of_product = ((of_product + of_product.mT) / x.shape[2]).to(x.dtype)
            of_x = accumulate(grad, matrix.mT, residual).baddbmm_(of_product, x)
        return of_x, of_theta, of_phi, of_out, of_g, of_alpha, of_residual


class _Direct(torch.autograd.Function):
    """The moment from two projections, which gates a third one."""

    @staticmethod
    def run(
        x: Tensor,
        theta: Tensor,
        phi: Tensor,
        out: Tensor,
        g: Tensor,
        alpha: Tensor | None,
        residual: Tensor | None,
        keep: bool,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        weight = torch.cat([theta, phi, g]).to(x.dtype)
        projected = project(weight, x)  # (B, 3 K, N)
        first, second, value = projected.chunk(3, dim=1)
        moment = mean_of_products(first.unsqueeze(2), second.unsqueeze(2)).squeeze(2)
        gated = scale_positions(value, _scaled(moment, alpha))
        kept = (projected, moment, weight) if keep else ()
        del projected, first, second, value
        y = project(out.to(x.dtype), gated)
        if residual is not None:
            y.addcmul_(x, residual.to(x.dtype))
        return y, kept

    @staticmethod
    def forward(ctx, *inputs: Tensor | None) -> Tensor:
        y, kept = _Direct.run(*inputs, keep=True)
        ctx.save_for_backward(*inputs, *kept)
        return writable(y)

    @staticmethod
    @outside_autocast
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, projected, moment, weight = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again
            again = partial(_step_by_step, schedule="direct")
            return differentiable_gradients(again, inputs, grad)
        x, _, _, out, _, alpha, residual = inputs
        first, second, value = projected.chunk(3, dim=1)
        # Of (B, C, K), less what that is scaled by.
        of_gate = _gradients_of_gate(_products(grad, value), moment, out, alpha)
        of_out, of_moment, of_alpha = of_gate
        of_moment = of_moment / x.shape[2]
        scaled = _scaled(moment, alpha)
        of_projected = _side_by_side(
            scale_positions(second, of_moment),
            scale_positions(first, of_moment),
            scale_positions(_project_back(out, grad), scaled),
            like=x,
        )
        of_x = of_residual = None
        of_theta, of_phi, of_g = _products(of_projected, x).sum(dim=0).chunk(3)
        if residual is not None:
            of_residual = sum_of_all_products(grad, x).reshape(1)
        if ctx.needs_input_grad[0]:
            of_x = apply_to_positions(for_each(weight.mT, x), of_projected)
            if residual is not None:
                of_x.addcmul_(grad, residual.to(x.dtype))
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


def _gradients_of_g(
    of_matrix: Tensor, moment: Tensor, out: Tensor, g: Tensor, alpha: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the gradients of g, (K, C), and of what it follows, (B, C, K)."""
    folded = out.to(moment.dtype) * _scaled(moment, alpha).unsqueeze(1)  # (B, C, K)
    of_g = torch.bmm(folded.mT, of_matrix).sum(dim=0)
    return of_g, of_matrix @ g.to(moment.dtype).mT


def _gradients_of_gate(
    of_folded: Tensor, moment: Tensor, out: Tensor, alpha: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the gradients of ``out``, of the moment and of alpha.

    From that of ``out diag(alpha moment)``, (B, C, K), before it is scaled.
    """
    of_out = (of_folded * _scaled(moment, alpha).unsqueeze(1)).sum(dim=0)
    of_scaled = (of_folded * out.to(moment.dtype)).sum(dim=1)  # (B, K)
    if alpha is None:
        return of_out, of_scaled, None
    of_alpha = (of_scaled * moment).sum().reshape(1)
    return of_out, of_scaled * alpha.to(moment.dtype), of_alpha


def _project_back(out: Tensor, grad: Tensor) -> Tensor:
    return apply_to_positions(for_each(out.to(grad.dtype).mT, grad), grad)


def _products(left: Tensor, right: Tensor) -> Tensor:
    """Return left right^T for (B, *, N), in float32 or better."""
    if left.is_cuda or left.dtype == torch.float16:
        return wide_product(left, right.mT)
    return (left @ right.mT).to(accumulate_dtype(left))
