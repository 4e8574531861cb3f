"""Sums over the ranks of a group, with the gradient that a loss on every rank needs.

The loss is computed on every rank, from what all share. The average of all ranks'
gradients, which is what DistributedDataParallel takes, is then the gradient: the
gradient of a sum over ranks is the sum of the ranks' gradients.
"""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from polynl_mm.clip_parallel.shares import Share
from polynl_mm.clip_parallel.traffic import count_sent
from polynl_mm.ops.precision import accumulate_dtype


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, share):
        ctx.share = share
        return all_sum(x, share)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return all_sum(grad, ctx.share), None


def all_sum(x: Tensor, share: Share, kind: str = "sums") -> Tensor:
    """Return the sum over the ranks of a group, with no gradient.

    Args:
        x (Tensor): This rank's term.
        share (Share): This rank's.
        kind (str): As what its bytes count.

    Returns:
        Tensor: The same on all of them.
    """
    if share.group is None:
        return x.detach() * share.count
    total = x.detach().to(accumulate_dtype(x), copy=True).contiguous()
    dist.all_reduce(total, group=share.group)
    count_sent(kind, total)
    return total.to(x.dtype)


def sum_over_ranks(x: Tensor, share: Share) -> Tensor:
    """Return the sum over the ranks of a group.

    Args:
        x (Tensor): This rank's term.
        share (Share): This rank's.

    Returns:
        Tensor: The same on all of them.
    """
    return _Sum.apply(x, share)


class _WholeClip(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, dim, share):
        ctx.dim, ctx.share = dim, share
        own = x.contiguous()
        parts = [torch.empty_like(own) for _ in range(share.count)]
        dist.all_gather(parts, own, group=share.group)
        count_sent("clips", own)
        return torch.cat(parts, dim)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        start, end = ctx.share.cut(grad.shape[ctx.dim])
        total = all_sum(grad, ctx.share, "clips")
        return total.narrow(ctx.dim, start, end - start), None, None


def whole_clip(x: Tensor, dim: int, share: Share) -> Tensor:
    """Return the frames of all ranks of a group, in the order of time.

    Args:
        x (Tensor): This rank's frames, as many as every other's.
        dim (int): The axis of time.
        share (Share): This rank's.

    Returns:
        Tensor: The same on all of them.
    """
    if share.group is None:
        return torch.cat([x] * share.count, dim)
    return _WholeClip.apply(x, dim, share)


def gather_over_ranks(x: Tensor, share: Share) -> Tensor:
    """Return what all ranks of a group hold.

    Args:
        x (Tensor): This rank's, of the same shape on all.
        share (Share): This rank's.

    Returns:
        Tensor: (ranks, *x.shape), the same on all of them.
    """
    places = [torch.zeros_like(x)] * share.count
    places[share.index] = x
    return sum_over_ranks(torch.stack(places), share)
