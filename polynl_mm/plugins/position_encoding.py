"""What tells a block where a position lies: without it, no block knows any order.

Every block of this family takes a clip with its frames shuffled as the clip itself,
shuffled alike: sitting down and standing up are one thing to it. The sines are those
of Vaswani et al., "Attention Is All You Need", NeurIPS 2017, section 3.5, but of the
place relative to the length of the axis, so that a clip of any length is covered as
those of the training were, and mixed by a learned projection.
"""

import math
from typing import Literal

import torch
import torch.nn as nn
from torch import Tensor

from polynl_mm.ops.half_products import sum_of_axes
from polynl_mm.ops.precision import accumulate_dtype
from polynl_mm.ops.summaries import Holder

Positions = Literal["sine"]
POSITIONS: tuple[Positions, ...] = ("sine",)

# Of half a period along the whole axis, one, two and four.
_HALF_PERIODS = (1, 2, 4, 8)


class SinePositions(nn.Module):
    """Learned mixtures of sines of the place along some axes, one for each channel.

    Args:
        channels (int): C of the features that they are added to.
        dims (int): The features' axes of positions: 2 for (H, W), 3 for (T, H, W).
        along (tuple[int, ...]): The axes that are told apart, from 0 to ``dims - 1``.
    """

    def __init__(self, channels: int, dims: int, along: tuple[int, ...]) -> None:
        super().__init__()
        self.dims = dims
        self.along = along
        waves = 2 * len(_HALF_PERIODS)
        self.weight = nn.Parameter(torch.empty(len(along), channels, waves))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the weights as at construction: encodings of unit variance."""
        waves = len(_HALF_PERIODS) * len(self.along)  # sin^2 + cos^2 = 1
        nn.init.normal_(self.weight, std=1 / math.sqrt(waves))

    def forward(self, x: Tensor, others: Holder | None = None) -> Tensor:
        """Return the encoding of every position.

        Args:
            x (Tensor): Features, (B, C, *positions).
            others (Holder, optional): Who holds the other frames of the clip.

        Returns:
            Tensor: (1, C, *positions), of size 1 along the axes not told apart, of the
            type of ``x``.
        """
        encodings = []
        for weight, axis in zip(self.weight, self.along, strict=True):
            length = x.shape[2 + axis]
            place = (0, length)
            if others is not None and axis == self.dims - 3:
                place = others.place(length)
            waves = _waves(length, *place, weight)
            shape = [1] * self.dims
            shape[axis] = length
            encoding = weight.to(waves.dtype) @ waves  # (C, L)
            encodings.append(encoding.reshape(1, -1, *shape))
        # What is as large as a clip's features is made in their type.
        return sum_of_axes(encodings, x.dtype)

    def extra_repr(self) -> str:
        """Return what ``print(model)`` shows beside the layers."""
        return f"{self.weight.shape[1]}, along={self.along}"


def _waves(length: int, before: int, whole: int, like: Tensor) -> Tensor:
    """Return sines and cosines of a part of an axis, (2 * half periods, length)."""
    options = dict(dtype=accumulate_dtype(like), device=like.device)
    place = torch.arange(before, before + length, **options)
    place = (place + 0.5) / max(whole, 1)
    # Numbers of Python: a tensor of them would be copied to a GPU, which waits for it.
    angle = torch.stack([math.pi * halves * place for halves in _HALF_PERIODS])
    return torch.cat([angle.sin(), angle.cos()])
