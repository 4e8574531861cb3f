"""The four pairwise functions of the non-local block, without the N x N affinity.

Source: Wang et al., "Non-local Neural Networks", CVPR 2018, section 3.2. ``theta``
holds one column a query; ``phi`` and ``g`` may have fewer positions (sub-sampling).

Each function equals the function of its name in ``reference``. For N queries and N
keys, ``dot_product`` costs N, ``concatenation`` N log N, ``gaussian`` N^2 in time;
the memory of all of them is linear in N, forward and backward.
"""

from functools import partial

import torch
from torch import Tensor

from polynl_mm.ops.fused_attention import (
    gaussian_fused,
    gaussian_in_full,
    has_fused_kernel,
)
from polynl_mm.ops.own_functions import (
    apply_function,
    differentiable_gradients,
    room_for,
    wants_gradients,
    with_known_signature,
)
from polynl_mm.ops.precision import (
    accumulate_dtype,
    cast,
    compute_dtype,
    outside_autocast,
    without_autocast,
)
from polynl_mm.ops.products import project, thin_product
from polynl_mm.ops.summaries import Holder, gathered, mean_of_all

# Similarities held at a time: 8 MiB in float32, which a CPU's caches still serve; on a
# GPU 128 MiB, or it waits for the start of each product.
_CHUNK, _CHUNK_ON_GPU = 2**21, 2**25
# Prefix sums held at a time on a CPU: 2 MiB in float64, of which each pass finds the
# last one's result in cache, and no large buffer is taken from the system.
_CPU_BLOCK = 2**18


def gaussian(theta: Tensor, phi: Tensor, g: Tensor, *, scale: bool = False) -> Tensor:
    """Average ``g`` by the softmax of the similarities.

    In one of three ways: in full where the affinity is no larger than the inputs (few
    keys); by ``scaled_dot_product_attention`` where one of its fused kernels serves (on
    CPUs not for gradients, on GPUs for half types); else by chunks of queries, which
    the backward pass computes again.

    Args:
        theta (Tensor): Queries, (B, K, N).
        phi (Tensor): Keys, (B, K, M).
        g (Tensor): Values, (B, V, M).
        scale (bool): Divide the similarities by the root of K.

    Returns:
        Tensor: (B, V, N). Its second derivative makes the N x M affinity.
    """
    dtype = compute_dtype(theta, phi, g)
    theta, phi, g = cast(dtype, theta, phi, g)
    factor = theta.shape[1] ** -0.5 if scale else 1.0
    with without_autocast(theta):
        if phi.shape[2] <= max(theta.shape[1], g.shape[1]):
            return gaussian_in_full(theta, phi, g, factor)
        trains = wants_gradients(theta, phi, g)
        # A trace is checked without gradients, and may be trained: one way for both.
        fused = theta.is_cuda or not (trains or torch.jit.is_tracing())
        if fused and has_fused_kernel(theta, phi, g):
            return gaussian_fused(theta, phi, g, factor, again=trains)
        wide = cast(accumulate_dtype(theta), theta, phi, g)
        return apply_function(_ChunkedGaussian, *wide, factor).to(dtype)


def non_local_stage(
    theta: Tensor,
    phi: Tensor,
    g: Tensor,
    *,
    scale: bool = False,
    others: Holder | None = None,
) -> Tensor:
    """Subtract from ``g`` its average by the softmax of the similarities.

    Units that share one affinity share ``theta`` and ``phi``: each calls this with its
    own ``g``, and the affinity is computed again rather than stored.

    Source: Tao et al., "Nonlocal Neural Networks, Nonlocal Diffusion and Nonlocal
    Modeling", NeurIPS 2018.

    Args:
        theta (Tensor): Queries, (B, K, N).
        phi (Tensor): Keys, (B, K, N).
        g (Tensor): Values, (B, V, N).
        scale (bool): Divide the similarities by the root of K.
        others (Holder, optional): Who holds the other positions of these clips.

    Returns:
        Tensor: (B, V, N).
    """
    average = gaussian(theta, *gathered(others, phi, g), scale=scale)
    return g.to(average.dtype) - average


def dot_product(
    theta: Tensor, phi: Tensor, g: Tensor, *, others: Holder | None = None
) -> Tensor:
    """Sum ``g`` weighted by the similarities over their number.

    The product is reassociated, and divided before it can leave float16's range.

    Args:
        theta (Tensor): Queries, (B, K, N).
        phi (Tensor): Keys, (B, K, M).
        g (Tensor): Values, (B, V, M).
        others (Holder, optional): Who holds the other positions of these clips.

    Returns:
        Tensor: (B, V, N).
    """
    theta, phi, g = cast(compute_dtype(theta, phi, g), theta, phi, g)
    with without_autocast(theta):
        if others is not None:
            wide = cast(accumulate_dtype(g), g, phi)
            attended = wide[0] @ wide[1].mT / phi.shape[2]  # (B, V, K)
            attended = mean_of_all(others, attended, phi.shape[2])
            return attended.to(theta.dtype) @ theta
        return thin_product(g, phi, theta, scale=1 / phi.shape[2])


def concatenation(theta: Tensor, phi: Tensor, g: Tensor, weight: Tensor) -> Tensor:
    """Sum ``g`` weighted by ReLU(weight [theta_i, phi_j]) over their number.

    The weight is ReLU(a_i + b_j), positive for a prefix of the keys in descending
    order of b. With k_i the length of that prefix, and G and H the prefix sums of g
    and of b g, the sum is a_i G[k_i] + H[k_i]: one sort, two prefix sums, one search.

    Args:
        theta (Tensor): Queries, (B, K, N).
        phi (Tensor): Keys, (B, K, M).
        g (Tensor): Values, (B, V, M).
        weight (Tensor): The projection of the concatenated pair, (2 K,).

    Returns:
        Tensor: (B, V, N).
    """
    dtype = compute_dtype(theta, phi, g)
    theta, phi, g, weight = cast(dtype, theta, phi, g, weight)
    for_theta, for_phi = weight.chunk(2)
    with without_autocast(g):
        a = project(for_theta.unsqueeze(0), theta).squeeze(1)  # (B, N)
        b = project(for_phi.unsqueeze(0), phi).squeeze(1)  # (B, M)
        prefixes = _find_prefixes(a, b)
        trains = torch.is_grad_enabled() and not torch.jit.is_tracing()
        back = _find_prefixes(b, a) if trains else None
        # In float64 for all types: short sums are read off as differences of long ones.
        a, b = (t.double() / phi.shape[2] for t in (a, b))
        if back is None:
            return _sum_prefixes(a, b, g, *prefixes, with_slope=False)[0]
        return apply_function(_RampSum, a, b, g, *prefixes, *back)[0]


def _find_prefixes(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Find, for every a_i, the j with a_i + b_j > 0 as a prefix of the sorted b.

    Args:
        a (Tensor): (B, N).
        b (Tensor): (B, M).

    Returns:
        tuple[Tensor, Tensor]: The indices of b in descending order, (B, M), and the
        length of each a_i's prefix, (B, N).
    """
    ascending, order = b.detach().neg().sort(dim=1)
    # Comparing -b_j < a_i agrees with the sign of the rounded sum, ties included.
    return order, torch.searchsorted(ascending, a.detach().contiguous())


@with_known_signature
class _RampSum(torch.autograd.Function):
    """``sum_j ReLU(a_i + b_j) g_j``, and its slope ``sum_j [a_i + b_j > 0] g_j``.

    Their transposes sum over queries instead of keys: the same function with the two
    exchanged, which is why it takes the prefixes of both. The slope is an output so
    that it is kept once, for a's gradient, and can itself be differentiated.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        a: Tensor,
        b: Tensor,
        g: Tensor,
        order: Tensor,
        lengths: Tensor,
        query_order: Tensor,
        query_lengths: Tensor,
    ) -> tuple[Tensor, Tensor]:
        return _sum_prefixes(a, b, g, order, lengths)

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs, output[1])
        ctx.set_materialize_grads(False)

    @staticmethod
    @outside_autocast
    def backward(
        ctx, grad: Tensor | None, grad_slope: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        a, b, g, *prefixes, slope = ctx.saved_tensors
        exchanged = (*prefixes[2:], *prefixes[:2])
        grad_a = grad_b = grad_g = None
        if grad is not None:
            grad_g, key_slope = _RampSum.apply(b, a, grad, *exchanged)
            grad_a = (grad * slope).sum(dim=1).to(a.dtype)
            grad_b = (g * key_slope).sum(dim=1).to(b.dtype)
        if grad_slope is not None:
            of_slope = _RampSum.apply(b, a, grad_slope, *exchanged)[1]
            of_slope = of_slope.to(g.dtype)
            grad_g = of_slope if grad_g is None else grad_g + of_slope
        return grad_a, grad_b, grad_g, None, None, None, None


def _sum_prefixes(
    a: Tensor,
    b: Tensor,
    g: Tensor,
    order: Tensor,
    lengths: Tensor,
    *,
    with_slope: bool = True,
) -> tuple[Tensor, Tensor]:
    """Compute what :class:`_RampSum` returns, some channels at a time.

    Args:
        a (Tensor): (B, N), float64.
        b (Tensor): (B, M), float64.
        g (Tensor): (B, V, M).
        order (Tensor): The indices of b in descending order, (B, M).
        lengths (Tensor): The length of each query's prefix of it, (B, N).
        with_slope (bool): Compute the slope, too; else it comes back empty.

    Returns:
        tuple[Tensor, Tensor]: The sum and its slope, (B, V, N).
    """
    B, V, M = g.shape
    N = a.shape[1]
    # One key in front, of no value: the prefix of length zero.
    order = torch.cat([order[:, :1], order], dim=1).unsqueeze(1)  # (B, 1, M + 1)
    lengths = lengths.unsqueeze(1)
    a, sorted_b = a.unsqueeze(1), b.unsqueeze(1).gather(2, order)
    y = g.new_empty(B, V, N)
    # Not divided by anything, it leaves float16's range.
    slope = g.new_empty(B, V if with_slope else 0, N, dtype=accumulate_dtype(g))
    y, slope = room_for(y, a, b), room_for(slope, a, b)
    held = _batch_of_chunks(g) * max(M, N)
    size = V if g.device.type != "cpu" else max(1, _CPU_BLOCK // max(1, held))
    for start in range(0, V, size):
        part = slice(start, start + size)
        few = g.narrow(1, start, min(size, V - start))
        values = few.gather(2, order.expand(-1, few.shape[1], -1))
        values = values.double()  # (B, size, M + 1)
        values[..., 0] = 0
        at = lengths.expand(-1, values.shape[1], -1)
        of_g = values.cumsum(dim=2).gather(2, at)  # (B, size, N)
        of_b_g = values.mul_(sorted_b).cumsum(dim=2).gather(2, at)
        # Forward-mode differentiation knows no copy between types.
        y[:, part] = of_b_g.addcmul_(a, of_g).to(y.dtype)
        if with_slope:
            slope[:, part] = of_g.to(slope.dtype)
    return y, slope


@with_known_signature
class _ChunkedGaussian(torch.autograd.Function):
    """Softmax average for a chunk of queries at a time, forward and backward.

    Forward by the CPU's fused kernel where it serves. That kernel's own backward pass
    is wrong for large logits (torch 2.13: by per cents from 1e6, NaN from 2e7): it
    rebuilds the softmax from a stored log-sum-exp, which is rounded.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(theta: Tensor, phi: Tensor, g: Tensor, factor: float) -> Tensor:
        if has_fused_kernel(theta, phi, g) and not torch.jit.is_tracing():
            return gaussian_fused(theta, phi, g, factor)
        query = theta * factor
        y = room_for(g.new_empty(*g.shape[:2], theta.shape[2]), theta, phi)
        for chunk in _chunks(theta, phi):
            affinity = (query.narrow(2, *chunk).mT @ phi).softmax(dim=2)
            y.narrow(2, *chunk).copy_(g @ affinity.mT)  # (B, chunk, M)
        return y

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:
        *tensors, ctx.factor = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    @outside_autocast
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        theta, phi, g = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again
            again = partial(gaussian_in_full, factor=ctx.factor)
            return *differentiable_gradients(again, (theta, phi, g), grad), None
        query = theta * ctx.factor
        inputs = (theta, phi, g)
        grad_theta, grad_phi, grad_g = (
            room_for(torch.zeros_like(t), grad, *inputs) for t in inputs
        )
        for chunk in _chunks(theta, phi):
            some, of_some = query.narrow(2, *chunk), grad.narrow(2, *chunk)
            affinity = (some.mT @ phi).softmax(dim=2)  # (B, chunk, M)
            grad_g.baddbmm_(of_some, affinity)
            grad_logits = of_some.mT @ g
            # Their mean from the same products, and not from the output, which is
            # rounded otherwise: see `precision`.
            mean = (grad_logits * affinity).sum(dim=2, keepdim=True)
            grad_logits.sub_(mean).mul_(affinity)
            grad_phi.baddbmm_(some, grad_logits)
            grad_theta.narrow(2, *chunk).copy_(phi @ grad_logits.mT)
        return grad_theta.mul_(ctx.factor), grad_phi, grad_g, None


def _chunks(theta: Tensor, phi: Tensor) -> list[tuple[int, int]]:
    """Return the first query of each chunk, and how many it has."""
    held = _CHUNK_ON_GPU if theta.is_cuda else _CHUNK
    size = max(1, held // max(1, _batch_of_chunks(phi) * phi.shape[2]))
    queries = theta.shape[2]
    return [(start, min(size, queries - start)) for start in range(0, queries, size)]


def _batch_of_chunks(x: Tensor) -> int:
    """Return the batch size that chunks are made for.

    An exported graph has a fixed number of chunks, but may take any batch size.
    """
    is_exporting = getattr(torch.compiler, "is_exporting", None)  # from torch 2.7
    return 1 if is_exporting is not None and is_exporting() else x.shape[0]
