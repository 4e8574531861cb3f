"""Poly-NL as other implementations have it, to be measured against."""

import torch
from torch import Tensor, nn


class PlainPolyNL3d(nn.Module):
    """Poly-NL as three 1x1x1 convolutions, a product, a mean and a gate.

    The weights are those of ``PolyNL3d`` without reduction and norm.

    Args:
        in_channels (int): C.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.theta, self.phi, self.out = (
            nn.Conv3d(in_channels, in_channels, 1, bias=False) for _ in range(3)
        )
        self.alpha = nn.Parameter(torch.zeros(1))
        self.beta = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """Return alpha out(mean(theta x * phi x) * x) + beta x, of the shape of x."""
        moment = (self.theta(x) * self.phi(x)).mean(dim=(2, 3, 4), keepdim=True)
        return self.alpha * self.out(moment * x) + self.beta * x
