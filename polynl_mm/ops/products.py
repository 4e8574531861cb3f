"""Products of three thin matrices, in the cheaper of their two orders.

Most linear-cost blocks are ``values keys^T queries``. As ``(values keys^T) queries`` a
position costs the product of the two widths; as ``values (keys^T queries)`` it costs
the number of positions, which is less where a block looks along a short axis (8 frames
of 256 channels).
"""

import torch
from torch import Tensor


def apply_to_positions(
    matrix: Tensor, x: Tensor, added: Tensor | None = None
) -> Tensor:
    """Return ``matrix x``, or ``added + matrix x``, laid out as ``x`` is.

    Features whose channels lie last in memory stay so: neither they nor the result
    are laid out anew.

    Args:
        matrix (Tensor): (B, K, C).
        x (Tensor): Features, (B, C, N).
        added (Tensor, optional): (B, K, N).

    Returns:
        Tensor: (B, K, N).
    """
    if has_channels_last(x):
        left, right = x.mT, matrix.mT
        if added is None:
            return torch.bmm(left, right).mT
        return torch.baddbmm(added.mT, left, right).mT
    if added is None:
        return torch.bmm(matrix, x)
    return torch.baddbmm(added, matrix, x)


def project(weight: Tensor, x: Tensor, added: Tensor | None = None) -> Tensor:
    """Return ``weight x``, or ``added + weight x``, for one matrix for all samples.

    The result is laid out as ``x`` is. ``weight @ x`` lays a batch of features out
    anew, and back in the backward pass. It is taken where samples have few positions (a
    pixel's frames): there the gradients of the weight, one a sample before they are
    summed, would be larger than the features.

    Args:
        weight (Tensor): (K, C).
        x (Tensor): Features, (B, C, N).
        added (Tensor, optional): (B, K, N).

    Returns:
        Tensor: (B, K, N).
    """
    rows, columns = weight.shape
    if x.shape[2] * (rows + columns) < rows * columns:
        y = (x.mT @ weight.mT).mT if has_channels_last(x) else weight @ x
        return y if added is None else added + y
    return apply_to_positions(for_each(weight, x), x, added)


def for_each(weight: Tensor, samples: Tensor) -> Tensor:
    """(K, C) -> (B, K, C), a view, whose gradient is no sum where B is 1."""
    return weight.unsqueeze(0).expand(samples.shape[0], -1, -1)


def has_channels_last(x: Tensor) -> bool:
    """Return whether the channels of features, (B, C, N), lie last in memory."""
    return x.shape[1] > 1 and x.stride(1) == 1 and x.stride(2) >= x.shape[1]


def thin_product(
    values: Tensor, keys: Tensor, queries: Tensor, *, scale: float = 1.0
) -> Tensor:
    """Return ``scale values keys^T queries``, multiplied in the cheaper order.

    Args:
        values (Tensor): (B, V, M).
        keys (Tensor): (B, K, M), of the type of ``values``.
        queries (Tensor): (B, K, N), of the type of ``values``.
        scale (float): A factor of the sum over M, as a rule 1 / M.

    Returns:
        Tensor: (B, V, N). What is made on the way to it is no larger than the inputs.
    """
    if values.dtype == torch.float16:
        # A half of the scale on each factor: no sum overflows, and no factor sinks
        # below float16's normal numbers.
        values, keys, scale = values * scale**0.5, keys * scale**0.5, 1.0
    if affinity_is_cheaper(values, keys, queries):
        return values @ (keys.mT @ queries * scale)
    return (values @ keys.mT * scale) @ queries


def affinity_is_cheaper(values: Tensor, keys: Tensor, queries: Tensor) -> bool:
    """Return whether ``keys^T queries`` first takes fewer multiplications.

    Args:
        values (Tensor): (B, V, M).
        keys (Tensor): (B, K, M).
        queries (Tensor): (B, K, N).

    Returns:
        bool: True if M N (K + V) < K V (M + N).
    """
    (_, width, keys_count), queries_count = keys.shape, queries.shape[2]
    value_width = values.shape[1]
    affinity = keys_count * queries_count * (width + value_width)
    return affinity < width * value_width * (keys_count + queries_count)
