"""What each block means, as the papers write it: short, slow, and the tests' oracle.

Notation: ``B`` samples, ``C`` channels, ``N`` positions, ``K`` inner channels (the
papers' C'). Weights are matrices (rows x columns) of 1x1 convolutions.
"""

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def poly_nl(
    x: Tensor,
    theta: Tensor,
    phi: Tensor,
    out: Tensor,
    g: Tensor | None = None,
    *,
    biases: Sequence[Tensor | None] = (None,) * 4,
    moment_norm: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Poly-NL as published: gate every position by a global second-order moment.

    Source: Babiloni et al., "Poly-NL: Linear Complexity Non-local Layers with 3rd
    Order Polynomials", ICCV 2021.

    Args:
        x (Tensor): Features, (B, C, N).
        theta (Tensor): First projection W1, (K, C).
        phi (Tensor): Second projection W2, (K, C).
        out (Tensor): Output projection W3, (C, K).
        g (Tensor, optional): Projection of the gated features, (K, C). None is the
            identity, the paper's form, and needs K = C.
        biases (Sequence[Tensor | None]): Of theta, phi, out and g; the paper has none.
        moment_norm (Callable, optional): What is made of the mean, (B, 1, K); the
            paper takes it as it is.

    Returns:
        Tensor: ``out(mean_j(theta x_j * phi x_j) * g x_i)``, (B, C, N).
    """
    of_theta, of_phi, of_out, of_g = biases

    def project(weight: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
        return weight @ x if bias is None else weight @ x + bias.unsqueeze(1)

    product = project(theta, x, of_theta) * project(phi, x, of_phi)
    moment = product.mean(dim=2, keepdim=True)  # (B, K, 1)
    if moment_norm is not None:
        moment = moment_norm(moment.mT).mT
    value = x if g is None else project(g, x, of_g)  # (B, K, N)
    return project(out, moment * value, of_out)


def poly_nl_cubic(
    x: Tensor, theta: Tensor, phi: Tensor, out: Tensor, g: Tensor | None = None
) -> Tensor:
    """Poly-NL as the third-order polynomial of ``x`` that it is.

    Every output is a sum, over all positions j and all channel triples (a, b, d), of
    ``x_aj x_bj x_di`` times one coefficient. O(C^4) memory: for small C only.

    Args:
        x (Tensor): Features, (B, C, N).
        theta (Tensor): First projection, (K, C).
        phi (Tensor): Second projection, (K, C).
        out (Tensor): Output projection, (C, K).
        g (Tensor, optional): Projection of the gated features, (K, C).

    Returns:
        Tensor: The same as :func:`poly_nl`, (B, C, N).
    """
    g = torch.eye(x.shape[1], dtype=x.dtype, device=x.device) if g is None else g
    coefficients = torch.einsum("ck,ka,kb,kd->cabd", out, theta, phi, g)
    cubic = torch.einsum("cabd,zaj,zbj,zdi->zcij", coefficients, x, x, x)
    return cubic.mean(dim=3)  # over j: (B, C, N)


def gaussian(theta: Tensor, phi: Tensor, g: Tensor, *, scale: bool = False) -> Tensor:
    """Non-local average with the (embedded) Gaussian pairwise function.

    With theta = phi = x it is the Gaussian form, with projections the embedded
    Gaussian. Source: Wang et al., "Non-local Neural Networks", CVPR 2018, section 3.2;
    the scale is mmcv's.

    Args:
        theta (Tensor): Queries, (B, K, N).
        phi (Tensor): Keys, (B, K, M).
        g (Tensor): Values, (B, V, M).
        scale (bool): Divide the similarities by the root of K.

    Returns:
        Tensor: ``sum_j softmax_j(theta_i . phi_j) g_j``, (B, V, N).
    """
    similarity = theta.mT @ phi  # (B, N, M)
    if scale:
        similarity = similarity / theta.shape[1] ** 0.5
    return g @ similarity.softmax(dim=2).mT


def dot_product(theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
    """Non-local average with the dot-product pairwise function.

    Source: Wang et al., "Non-local Neural Networks", CVPR 2018, section 3.2.

    Args:
        theta (Tensor): Queries, (B, K, N).
        phi (Tensor): Keys, (B, K, M).
        g (Tensor): Values, (B, V, M).

    Returns:
        Tensor: ``sum_j (theta_i . phi_j) g_j / M``, (B, V, N).
    """
    affinity = theta.mT @ phi / phi.shape[2]  # (B, N, M)
    return g @ affinity.mT


def concatenation(theta: Tensor, phi: Tensor, g: Tensor, weight: Tensor) -> Tensor:
    """Non-local average with the concatenation pairwise function.

    Source: Wang et al., "Non-local Neural Networks", CVPR 2018, section 3.2.

    Args:
        theta (Tensor): Queries, (B, K, N).
        phi (Tensor): Keys, (B, K, M).
        g (Tensor): Values, (B, V, M).
        weight (Tensor): The projection of the concatenated pair, (2 K,).

    Returns:
        Tensor: ``sum_j ReLU(weight . [theta_i, phi_j]) g_j / M``, (B, V, N).
    """
    for_theta, for_phi = weight.chunk(2)
    a = (for_theta @ theta).unsqueeze(2)  # (B, N, 1)
    b = (for_phi @ phi).unsqueeze(1)  # (B, 1, M)
    affinity = torch.relu(a + b) / phi.shape[2]  # (B, N, M)
    return g @ affinity.mT


def non_local_stage(
    theta: Tensor, phi: Tensor, g: Tensor, *, scale: bool = False
) -> Tensor:
    """One diffusion step of the non-local stage: what the average does not explain.

    Source: Tao et al., "Nonlocal Neural Networks, Nonlocal Diffusion and Nonlocal
    Modeling", NeurIPS 2018.

    Args:
        theta (Tensor): Queries, (B, K, N).
        phi (Tensor): Keys, (B, K, N).
        g (Tensor): Values, (B, V, N).
        scale (bool): Divide the similarities by the root of K.

    Returns:
        Tensor: ``g_i - sum_j softmax_j(theta_i . phi_j) g_j``, (B, V, N).
    """
    return g - gaussian(theta, phi, g, scale=scale)


def spectral_affinity(theta: Tensor, phi: Tensor) -> Tensor:
    """Symmetric normalised affinity of the spectral non-local block.

    ``D^-1/2 (M + M^T) / 2 D^-1/2`` with ``M = ReLU(theta)^T ReLU(phi)`` and D the row
    sums of ``(M + M^T) / 2``. The row and the column of a position whose degree is
    zero are zero. Source: Zhu et al., "Unifying Nonlocal Blocks for Neural Networks",
    ICCV 2021.

    Args:
        theta (Tensor): First projection, (B, K, N).
        phi (Tensor): Second projection, (B, K, N).

    Returns:
        Tensor: (B, N, N).
    """
    one_way = theta.relu().mT @ phi.relu()  # (B, N, N)
    affinity = (one_way + one_way.mT) / 2
    degree = affinity.sum(dim=2)  # (B, N)
    some = degree > 0
    inverse_root = torch.where(some, torch.where(some, degree, 1.0) ** -0.5, 0.0)
    return inverse_root.unsqueeze(2) * affinity * inverse_root.unsqueeze(1)


def spectral(
    theta: Tensor, phi: Tensor, g: Tensor, weight: Tensor, *, stable: bool = False
) -> Tensor:
    """Chebyshev filter on the spectral affinity A.

    ``T_0 = I``, ``T_1 = A``, ``T_k = 2 A T_(k-1) - T_(k-2)``. Order 1 is the spectral
    non-local block (SNL), order 2 the generalised one (gSNL). Source: Zhu et al.,
    "Unifying Nonlocal Blocks for Neural Networks", ICCV 2021.

    Args:
        theta (Tensor): First projection, (B, K, N).
        phi (Tensor): Second projection, (B, K, N).
        g (Tensor): Signal to filter, (B, V, N).
        weight (Tensor): An output projection for each order from 0, (orders, C, V).
        stable (bool): Put A for A^2 in every term, as gSNL does: T_2 is 2 A - I.

    Returns:
        Tensor: ``sum_k weight_k T_k(A) g``, (B, C, N).
    """
    return _chebyshev(spectral_affinity(theta, phi), g, weight, stable)


def spectral_softmax(
    theta: Tensor,
    phi: Tensor,
    g: Tensor,
    weight: Tensor,
    *,
    stable: bool = False,
    scale: bool = False,
) -> Tensor:
    """Chebyshev filter on the row softmax of the similarities, not symmetric.

    With order 2 and ``stable`` it is gSNL as its authors' code of 2019 has it.

    Args:
        theta (Tensor): First projection, (B, K, N).
        phi (Tensor): Second projection, (B, K, N).
        g (Tensor): Signal to filter, (B, V, N).
        weight (Tensor): An output projection for each order from 0, (orders, C, V).
        stable (bool): Put A for A^2 in every term.
        scale (bool): Divide the similarities by the root of K.

    Returns:
        Tensor: ``sum_k weight_k T_k(A) g``, (B, C, N).
    """
    similarity = theta.mT @ phi  # (B, N, N)
    if scale:
        similarity = similarity / theta.shape[1] ** 0.5
    return _chebyshev(similarity.softmax(dim=2), g, weight, stable)


def _chebyshev(affinity: Tensor, g: Tensor, weight: Tensor, stable: bool) -> Tensor:
    filtered = [g, g @ affinity.mT]  # (B, V, N) each
    for k in range(2, len(weight)):
        if stable:
            # With A^2 = A, T_k = c I + (1 - c) A, where c is T_k at eigenvalue 0.
            c = math.cos(k * math.pi / 2)
            filtered.append(c * g + (1 - c) * filtered[1])
        else:
            filtered.append(2 * filtered[-1] @ affinity.mT - filtered[-2])
    return sum(w @ signal for w, signal in zip(weight, filtered, strict=False))


def disentangled(
    theta: Tensor, phi: Tensor, g: Tensor, logits: Tensor, *, scale: bool = False
) -> Tensor:
    """Pairwise average of the values, plus one that is the same for every query.

    Source: Yin et al., "Disentangled Non-Local Neural Networks", ECCV 2020, which
    whitens queries and keys first.

    Args:
        theta (Tensor): Queries, (B, K, N).
        phi (Tensor): Keys, (B, K, N).
        g (Tensor): Values, (B, V, N).
        logits (Tensor): One logit a position, (B, 1, N).
        scale (bool): Divide the similarities by the root of K.

    Returns:
        Tensor: ``sum_j (softmax_j(theta_i . phi_j) + softmax_j(logits_j)) g_j``,
        (B, V, N).
    """
    return gaussian(theta, phi, g, scale=scale) + global_context(logits, g)


def double_attention(theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
    """Gather the features into a few maps, then hand these out to every position.

    Source: Chen et al., "A^2-Nets: Double Attention Networks", NeurIPS 2018, where
    theta is V, phi is B and g is A.

    Args:
        theta (Tensor): Distribution logits, (B, K, N).
        phi (Tensor): Gathering logits, (B, K, M).
        g (Tensor): Features, (B, V, M).

    Returns:
        Tensor: ``g softmax_positions(phi)^T softmax_channels(theta)``, (B, V, N).
    """
    gathered = g @ phi.softmax(dim=2).mT  # (B, V, K)
    return gathered @ theta.softmax(dim=1)


def efficient_attention(
    theta: Tensor, phi: Tensor, g: Tensor, *, heads: int = 1
) -> Tensor:
    """Attention whose affinity is a product of two softmaxes.

    The affinity is ``softmax_channels(theta)^T softmax_positions(phi)``, for each head
    alone. Source: Shen et al., "Efficient Attention: Attention with Linear
    Complexities", WACV 2021.

    Args:
        theta (Tensor): Queries, (B, K, N).
        phi (Tensor): Keys, (B, K, M).
        g (Tensor): Values, (B, V, M).
        heads (int): Equal groups of channels, each attending alone.

    Returns:
        Tensor: (B, V, N).
    """
    parts = (t.chunk(heads, dim=1) for t in (theta, phi, g))
    outputs = []
    for query, key, value in zip(*parts, strict=True):
        affinity = query.softmax(dim=1).mT @ key.softmax(dim=2)  # (B, N, M)
        outputs.append(value @ affinity.mT)
    return torch.cat(outputs, dim=1)


def global_context(logits: Tensor, x: Tensor) -> Tensor:
    """Average the features over all positions by the softmax of their logits.

    Source: Cao et al., "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and
    Beyond", 2019: the context of the GC block, before its transform.

    Args:
        logits (Tensor): One logit a position, (B, 1, N).
        x (Tensor): Features, (B, C, N).

    Returns:
        Tensor: The context, the same for every query, (B, C, 1).
    """
    return (logits.softmax(dim=2) * x).sum(dim=2, keepdim=True)


def compact_generalized_dot(
    theta: Tensor, phi: Tensor, g: Tensor, *, groups: int = 1, scale: bool = False
) -> Tensor:
    """Non-local sum over positions and channels, with the dot-product kernel.

    In each group every element of theta meets every element of phi:
    ``vec(y) = (vec(theta) vec(phi)^T) vec(g)``. Source: Yue et al., "Compact
    Generalized Non-local Network", NeurIPS 2018.

    Args:
        theta (Tensor): Queries, (B, K, N).
        phi (Tensor): Keys, (B, K, N).
        g (Tensor): Values, (B, K, N).
        groups (int): Equal groups of channels, each for itself.
        scale (bool): Divide by the root of a group's elements, K N / groups.

    Returns:
        Tensor: (B, K, N).
    """
    query, key, value = (
        t.unflatten(1, (groups, -1)).flatten(2) for t in (theta, phi, g)
    )
    affinity = query.unsqueeze(3) * key.unsqueeze(2)  # (B, groups, L, L)
    if scale:
        affinity = affinity / query.shape[2] ** 0.5
    return (affinity @ value.unsqueeze(3)).reshape(theta.shape)


def compact_generalized_rbf(
    theta: Tensor,
    phi: Tensor,
    g: Tensor,
    *,
    groups: int = 1,
    scale: bool = False,
    order: int = 3,
    gamma: float = 1e-4,
) -> Tensor:
    """Non-local sum over positions and channels, with a series of the RBF kernel.

    ``exp(-gamma (t - p)^2)`` is taken as ``exp(-2 gamma) exp(2 gamma t p)``, and the
    second factor as its Taylor series. Source: Yue et al., "Compact Generalized
    Non-local Network", NeurIPS 2018.

    Args:
        theta (Tensor): Queries, (B, K, N).
        phi (Tensor): Keys, (B, K, N).
        g (Tensor): Values, (B, K, N).
        groups (int): Equal groups of channels, each for itself.
        scale (bool): Divide by the root of a group's elements, K N / groups.
        order (int): The highest power in the series.
        gamma (float): The kernel's width.

    Returns:
        Tensor: (B, K, N).
    """
    query, key, value = (
        t.unflatten(1, (groups, -1)).flatten(2) for t in (theta, phi, g)
    )
    exponent = 2 * gamma * query.unsqueeze(3) * key.unsqueeze(2)  # (B, groups, L, L)
    series = sum(exponent**power / math.factorial(power) for power in range(order + 1))
    affinity = math.exp(-2 * gamma) * series
    if scale:
        affinity = affinity / query.shape[2] ** 0.5
    return (affinity @ value.unsqueeze(3)).reshape(theta.shape)


def pyramid_non_local(
    theta: Tensor,
    phi: Tensor,
    g: Tensor,
    shape: Sequence[int],
    grids: Sequence[Sequence[int]],
    *,
    scale: bool = False,
) -> Tensor:
    """Mean, over several grids, of the attention to the average-pooled regions of each.

    After "Pyramid Non-local" (PNL), Neurocomputing 2021, of which only the abstract
    could be read: the regions, one softmax a grid, and the mean over the grids are our
    reading of it.

    Args:
        theta (Tensor): Queries, (B, K, N).
        phi (Tensor): Keys at every position, (B, K, N).
        g (Tensor): Values at every position, (B, V, N).
        shape (Sequence[int]): The sizes of the axes of positions, of product N.
        grids (Sequence[Sequence[int]]): For each grid, the regions along every axis; no
            more than there are positions are made.
        scale (bool): Divide the similarities by the root of K.

    Returns:
        Tensor: (B, V, N).
    """
    outputs = []
    for grid in grids:
        edges = []
        for size, wanted in zip(shape, grid, strict=True):
            n = min(size, wanted)
            # Where n does not divide the size, neighbouring regions share a position.
            bounds = [(r * size // n, -(-(r + 1) * size // n)) for r in range(n)]
            edges.append([slice(*bound) for bound in bounds])
        regions = list(itertools.product(*edges))
        key, value = (
            torch.stack(
                [
                    t.unflatten(2, tuple(shape))[(..., *region)].flatten(2).mean(2)
                    for region in regions
                ],
                dim=2,
            )
            for t in (phi, g)
        )  # (B, K, S), (B, V, S)
        outputs.append(gaussian(theta, key, value, scale=scale))
    return sum(outputs) / len(outputs)


def criss_cross(
    theta: Tensor, phi: Tensor, g: Tensor, shape: Sequence[int], *, scale: bool = False
) -> Tensor:
    """Attention of each position to those that differ from it along one axis at most.

    In 2d these are its row and its column, itself counted once. Source: Huang et al.,
    "CCNet: Criss-Cross Attention for Semantic Segmentation", ICCV 2019, whose
    code has it over three axes, too.

    Args:
        theta (Tensor): Queries, (B, K, N).
        phi (Tensor): Keys, (B, K, N).
        g (Tensor): Values, (B, V, N).
        shape (Sequence[int]): The sizes of the axes of positions, of product N.
        scale (bool): Divide the similarities by the root of K; the paper does not.

    Returns:
        Tensor: (B, V, N).
    """
    similarity = theta.mT @ phi  # (B, N, N)
    if scale:
        similarity = similarity / theta.shape[1] ** 0.5
    places = torch.ones(tuple(shape), device=g.device).nonzero()  # (N, axes)
    axes_apart = (places.unsqueeze(1) != places.unsqueeze(0)).sum(dim=2)  # (N, N)
    crossing = similarity.masked_fill(axes_apart > 1, -math.inf)
    return g @ crossing.softmax(dim=2).mT
