"""The four pairwise functions of the non-local block.

Source: Wang et al., "Non-local Neural Networks", CVPR 2018, section 3.2. ``theta`` and
``g`` hold one column a position; ``phi`` and ``g`` may have fewer positions than
``theta`` (sub-sampling).
"""

import torch
from torch import Tensor


def gaussian(theta: Tensor, phi: Tensor, g: Tensor, *, scale: bool = False) -> Tensor:
    """Average ``g`` by the softmax of the similarities.

    Args:
        theta (Tensor): Queries, (B, K, N).
        phi (Tensor): Keys, (B, K, M).
        g (Tensor): Values, (B, V, M).
        scale (bool): Divide the similarities by the root of K.

    Returns:
        Tensor: (B, V, N).
    """
    affinity = theta.mT @ phi  # (B, N, M)
    if scale:
        affinity = affinity / theta.shape[1] ** 0.5
    return g @ affinity.softmax(dim=2).mT


def dot_product(theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
    """Sum ``g`` weighted by the similarities over their number.

    Args:
        theta (Tensor): Queries, (B, K, N).
        phi (Tensor): Keys, (B, K, M).
        g (Tensor): Values, (B, V, M).

    Returns:
        Tensor: (B, V, N).
    """
    return g @ (theta.mT @ (phi / phi.shape[2])).mT


def concatenation(theta: Tensor, phi: Tensor, g: Tensor, weight: Tensor) -> Tensor:
    """Sum ``g`` weighted by ReLU(weight [theta_i, phi_j]) over their number.

    Args:
        theta (Tensor): Queries, (B, K, N).
        phi (Tensor): Keys, (B, K, M).
        g (Tensor): Values, (B, V, M).
        weight (Tensor): The projection of the concatenated pair, (2 K,).

    Returns:
        Tensor: (B, V, N).
    """
    for_theta, for_phi = weight.chunk(2)
    a = (for_theta @ theta).unsqueeze(2)  # (B, N, 1)
    b = (for_phi @ phi).unsqueeze(1)  # (B, 1, M)
    affinity = torch.relu(a + b) / phi.shape[2]
    return g @ affinity.mT
