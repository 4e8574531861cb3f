"""The parts of a clip that the ranks of a process group hold.

The loss is computed on every rank, of what all share. The average of all ranks'
gradients, which is what DistributedDataParallel takes, is then the gradient: the
gradient of a sum over ranks is the sum of the ranks' gradients, since each rank's loss
depends on it.
"""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from polynl_mm.clip_parallel.traffic import count_sent
from polynl_mm.ops.precision import accumulate_dtype


class Ranks:
    """A :class:`polynl_mm.ops.summaries.Holder` of the parts that other ranks hold.

    Args:
        group (ProcessGroup, optional): The ranks, in the order of their parts; None for
            all ranks.
    """

    def __init__(self, group: dist.ProcessGroup | None = None):
        self.group = group
        self.index = dist.get_rank(group)
        self.count = dist.get_world_size(group)

    def sum(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the sums over all ranks, by one reduction."""
        dtype = accumulate_dtype(*tensors)
        flat = torch.cat([t.reshape(-1).to(dtype) for t in tensors])
        parts = summed(flat, self.group).split([t.numel() for t in tensors])
        return tuple(
            part.view(t.shape).to(t.dtype)
            for part, t in zip(parts, tensors, strict=True)
        )

    def max(self, tensor: Tensor) -> Tensor:
        """Return the greatest over all ranks, without gradients."""
        result = tensor.detach().clone(memory_format=torch.contiguous_format)
        count_sent("sums", result)
        dist.all_reduce(result, op=dist.ReduceOp.MAX, group=self.group)
        return result

    def gather(self, tensor: Tensor, dim: int) -> Tensor:
        """Return all ranks' parts in their order."""
        lengths = self._lengths(tensor.shape[dim], tensor.device)
        return _Gather.apply(tensor, dim, lengths, self.index, self.group)

    def place(self, length: int) -> tuple[int, int]:
        """Return where this rank's part begins, and how long the whole is."""
        lengths = self.lengths(length)
        return sum(lengths[: self.index]), sum(lengths)

    def lengths(self, length: int) -> tuple[int, ...]:
        """Return how long every rank's part is."""
        nccl = dist.get_backend(self.group) == "nccl"
        return self._lengths(length, torch.device("cuda" if nccl else "cpu"))

    def _lengths(self, length: int, device: torch.device) -> tuple[int, ...]:
        found = torch.zeros(self.count, dtype=torch.int64, device=device)
        found[self.index] = length
        dist.all_reduce(found, group=self.group)
        return tuple(found.tolist())


def all_sum(x: Tensor, group: dist.ProcessGroup | None, kind: str = "sums") -> Tensor:
    """Return the sum over ranks, with no gradient.

    Args:
        x (Tensor): This rank's term.
        group (ProcessGroup | None): The ranks.
        kind (str): As what its bytes count.

    Returns:
        Tensor: The same on all of them, of the type of ``x``.
    """
    total = x.detach().to(accumulate_dtype(x), copy=True).contiguous()
    if total.numel():
        count_sent(kind, total)
        dist.all_reduce(total, group=group)
    return total.to(x.dtype)


def summed(x: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """Return the sum over ranks, with gradients to all.

    Args:
        x (Tensor): This rank's term.
        group (ProcessGroup | None): The ranks.

    Returns:
        Tensor: The same on all of them, of the type of ``x``.
    """
    return _Sum.apply(x, group)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, group):
        ctx.group = group
        return all_sum(x, group)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return all_sum(grad, ctx.group), None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, dim, lengths, index, group):
        ctx.dim, ctx.group = dim, group
        ctx.start, ctx.length = sum(lengths[:index]), lengths[index]
        longest = max(lengths)
        shape = [*x.shape]
        shape[dim] = longest
        own = x.new_zeros(shape)  # unequal parts travel at the length of the longest
        own.narrow(dim, 0, ctx.length).copy_(x)
        parts = [torch.empty_like(own) for _ in lengths]
        count_sent("clips", own)
        dist.all_gather(parts, own, group=group)
        cut = [p.narrow(dim, 0, n) for p, n in zip(parts, lengths, strict=True)]
        return torch.cat(cut, dim)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        total = all_sum(grad, ctx.group, "clips")
        return total.narrow(ctx.dim, ctx.start, ctx.length), None, None, None, None
