"""The steps of Poly-NL: to the moment, and from it; autograd knows each of them."""

import torch
from torch import Tensor

from polynl_mm.ops.gram import apply_matrix, gram, with_bias
from polynl_mm.ops.half_products import mean_of_products, scale_positions
from polynl_mm.ops.precision import accumulate_dtype
from polynl_mm.ops.products import for_each, project


def moment_direct(
    x: Tensor,
    theta: Tensor,
    phi: Tensor,
    of_theta: Tensor | None,
    of_phi: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return the moment, (B, G, K), and x."""
    a, b = _project(theta, x, of_theta), _project(phi, x, of_phi)  # (B, K, G, N)
    return mean_of_products(a, b).transpose(1, 2), x


def moment_gram(
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
    product, samples = gram(as_samples(x), with_mean=biased)
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


def as_samples(x: Tensor) -> Tensor:
    """(B, C, G, N) -> (B G, C, N), a view where G is 1."""
    return x.transpose(1, 2).flatten(0, 1)


def _project(weight: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply (K, C), and a bias, (K,), to every position of (B, C, G, N)."""
    y = project(weight.to(x.dtype), x.flatten(2))
    y = y.unflatten(2, x.shape[2:])
    return y if bias is None else y + bias.to(y.dtype)[:, None, None]


def gate_and_project(
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


def apply_folded(
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
    y = apply_matrix(as_samples(x), folded, residual, shift)
    return y.unflatten(0, moment.shape[:2]).transpose(1, 2)
