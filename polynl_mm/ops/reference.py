"""What each block means, as the papers write it: short, slow, and the tests' oracle.

Notation: ``B`` samples, ``C`` channels, ``N`` positions, ``K`` inner channels (the
papers' C'). Weights are matrices (rows x columns) of 1x1 convolutions.
"""

import torch
from torch import Tensor


def poly_nl(
    x: Tensor, theta: Tensor, phi: Tensor, out: Tensor, g: Tensor | None = None
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

    Returns:
        Tensor: ``out(mean_j(theta x_j * phi x_j) * g x_i)``, (B, C, N).
    """
    moment = ((theta @ x) * (phi @ x)).mean(dim=2, keepdim=True)  # (B, K, 1)
    value = x if g is None else g @ x  # (B, K, N)
    return out @ (moment * value)


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
