"""Convolutions and pools with a temporal kernel, each rank giving its own frames.

The classes are twins of torch's: a module becomes clip-parallel by taking its twin's
class, and so keeps its weights, its name and its place. Where clips are not shared,
a twin does what the original does.
"""

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn import functional
from torch.nn.modules.utils import _triple

from polynl_mm.clip_parallel.halos import TIME, exchange_halos
from polynl_mm.clip_parallel.lengths import UnevenSharesError
from polynl_mm.clip_parallel.shares import current_share
from polynl_mm.clip_parallel.sums import gather_over_ranks, sum_over_ranks
from polynl_mm.user_errors import UserError


class Reach:
    """How far along time a sliding kernel reaches.

    Args:
        name (str): The layer, for the sentences.
        kernel (int): How many frames it takes.
        stride (int): How many frames it moves.
        dilation (int): How far apart the frames it takes are.
        left (int): How many frames are padded before the clip.
        right (int): How many after it.

    Raises:
        UserError: If the layer does not give one frame for each stride, so that the
            ranks' shares would become unequal.
    """

    def __init__(
        self,
        name: str,
        kernel: int,
        stride: int,
        dilation: int = 1,
        left: int = 0,
        right: int = 0,
    ):
        self.name, self.stride, self.left = name, stride, left
        self.span = dilation * (kernel - 1)  # from its first frame to its last
        if not self.span + 1 - stride <= left + right <= self.span:
            raise UserError(
                f"Clips cannot be shared over ranks here: {name} has a temporal kernel "
                f"of {kernel} with a padding of {left}, which changes the number of "
                f"frames otherwise than by its stride of {stride}."
            )
        self.right = max(0, self.span + 1 - stride - left)

    def outputs(self, frames: int) -> int:
        """Return how many frames a share gives.

        Args:
            frames (int): How many it has.

        Returns:
            int: How many after the layer.

        Raises:
            UnevenSharesError: If the stride does not divide them.
        """
        if frames % self.stride:
            raise UnevenSharesError(self.name, frames, self.stride)
        return frames // self.stride


class SharedConv3d(nn.Conv3d):
    """A Conv3d whose clips are shared over ranks."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve this rank's frames, with the neighbours' at the borders."""
        share, whole = current_share(), super().forward
        if share is None or (self.kernel_size[0] == 1 and self.stride[0] == 1):
            return whole(x)
        reach = self.reach()
        count = reach.outputs(x.shape[TIME])
        x, before, after = exchange_halos(x, reach.left, reach.right, share)
        y = whole(x)  # where a neighbour's frames belong, zeros
        # A convolution is linear: what they add is added. Joining them to x instead
        # would keep a second copy of it for the backward pass.
        if before.shape[TIME]:
            first = min(-(-reach.left // reach.stride), count)
            span = (first - 1) * reach.stride + reach.span + 1
            missing = reach.left - before.shape[TIME]
            padded = _pad_time(before, missing, span - reach.left)
            y[:, :, :first] += self.of_neighbours(padded)
        if after.shape[TIME]:
            from_ = max(
                0, -(-(x.shape[TIME] + reach.left - reach.span) // reach.stride)
            )
            span = (count - from_ - 1) * reach.stride + reach.span + 1
            missing = reach.right - after.shape[TIME]
            padded = _pad_time(after, span - reach.right, missing)
            y[:, :, from_:] += self.of_neighbours(padded)
        return y

    def reach(self) -> Reach:
        """Return how far the kernel reaches along time."""
        if self.padding_mode != "zeros":
            raise UserError(
                "Clips cannot be shared over ranks here: a Conv3d has "
                f"padding_mode={self.padding_mode!r}; only 'zeros' is supported."
            )
        kernel, dilation = self.kernel_size[0], self.dilation[0]
        left = right = 0
        if self.padding == "same":
            left = dilation * (kernel - 1) // 2
            right = dilation * (kernel - 1) - left
        elif self.padding != "valid":
            left = right = self.padding[0]
        return Reach("a Conv3d", kernel, self.stride[0], dilation, left, right)

    def of_neighbours(self, frames: Tensor) -> Tensor:
        """Convolve frames that are padded along time already, with no bias."""
        padding = self.padding
        if not isinstance(padding, str):
            padding = (0, *padding[1:])
        elif padding == "same":
            sizes = zip(self.kernel_size[:0:-1], self.dilation[:0:-1], strict=True)
            spans = [d * (k - 1) for k, d in sizes]
            pads = [pad for span in spans for pad in (span // 2, span - span // 2)]
            frames, padding = functional.pad(frames, pads), 0
        else:
            padding = 0
        return functional.conv3d(
            frames,
            self.weight,
            None,
            self.stride,
            padding,
            self.dilation,
            self.groups,
        )


class SharedMaxPool3d(nn.MaxPool3d):
    """A MaxPool3d whose clips are shared over ranks."""

    def forward(self, x: Tensor) -> Tensor:
        """Pool this rank's frames, with the neighbours' at the borders."""
        kernel, stride, padding, dilation = map(
            _triple, (self.kernel_size, self.stride, self.padding, self.dilation)
        )
        if current_share() is None or (kernel[0] == 1 and stride[0] == 1):
            return super().forward(x)
        if self.return_indices or self.ceil_mode:
            raise UserError(
                "Clips cannot be shared over ranks here: a MaxPool3d has "
                "return_indices or ceil_mode."
            )
        reach = Reach(
            "a MaxPool3d", kernel[0], stride[0], dilation[0], padding[0], padding[0]
        )
        frames = _with_neighbours(x, reach, -torch.inf)
        padding = (0, *padding[1:])
        return functional.max_pool3d(frames, kernel, stride, padding, dilation)


class SharedAvgPool3d(nn.AvgPool3d):
    """An AvgPool3d whose clips are shared over ranks."""

    def forward(self, x: Tensor) -> Tensor:
        """Pool this rank's frames, with the neighbours' at the borders."""
        kernel, stride, padding = map(
            _triple, (self.kernel_size, self.stride, self.padding)
        )
        if current_share() is None or (kernel[0] == 1 and stride[0] == 1):
            return super().forward(x)
        if self.ceil_mode or (padding[0] and not self.count_include_pad):
            raise UserError(
                "Clips cannot be shared over ranks here: an AvgPool3d has ceil_mode, "
                "or leaves padded frames out of its mean."
            )
        reach = Reach("an AvgPool3d", kernel[0], stride[0], 1, padding[0], padding[0])
        frames = _with_neighbours(x, reach, 0)
        return functional.avg_pool3d(
            frames,
            kernel,
            stride,
            (0, *padding[1:]),
            False,
            self.count_include_pad,
            self.divisor_override,
        )


def _with_neighbours(x: Tensor, reach: Reach, filling: float) -> Tensor:
    """Join the neighbours' frames to this rank's, and padding where the clip ends."""
    reach.outputs(x.shape[TIME])
    if not reach.left and not reach.right:
        return x
    x, before, after = exchange_halos(x, reach.left, reach.right, current_share())
    frames = torch.cat([before, x, after], TIME)
    return _pad_time(
        frames,
        reach.left - before.shape[TIME],
        reach.right - after.shape[TIME],
        filling,
    )


def _pad_time(x: Tensor, left: int, right: int, filling: float = 0) -> Tensor:
    return functional.pad(x, (0, 0, 0, 0, left, right), value=filling)


class SharedAdaptiveAvgPool3d(nn.AdaptiveAvgPool3d):
    """An AdaptiveAvgPool3d whose clips are shared over ranks."""

    def forward(self, x: Tensor) -> Tensor:
        """Pool; to one frame, over the whole clip."""
        share = current_share()
        if share is None:
            return super().forward(x)
        size = _own_size(self, x.shape[TIME])
        y = functional.adaptive_avg_pool3d(x, size)
        if _triple(self.output_size)[0] == 1:
            # Every rank has equally many frames.
            y = sum_over_ranks(y / share.count, share)
        return y


class SharedAdaptiveMaxPool3d(nn.AdaptiveMaxPool3d):
    """An AdaptiveMaxPool3d whose clips are shared over ranks."""

    def forward(self, x: Tensor) -> Tensor:
        """Pool; to one frame, over the whole clip."""
        share = current_share()
        if share is None:
            return super().forward(x)
        if self.return_indices:
            raise UserError(
                "Clips cannot be shared over ranks here: an AdaptiveMaxPool3d has "
                "return_indices."
            )
        size = _own_size(self, x.shape[TIME])
        y = functional.adaptive_max_pool3d(x, size)
        if _triple(self.output_size)[0] == 1:
            y = gather_over_ranks(y, share).max(0).values
        return y


def _own_size(pool: nn.Module, frames: int) -> tuple:
    """Return the size that this rank's frames are pooled to."""
    size, count = _triple(pool.output_size), current_share().count
    if size[0] in (None, 1):
        return size
    own, rest = divmod(size[0], count)
    if rest or frames % own:
        raise UserError(
            f"Clips cannot be shared over {count} ranks here: {type(pool).__name__} "
            f"pools to {size[0]} frames, and the regions of one would be of several "
            "ranks."
        )
    return (own, *size[1:])
