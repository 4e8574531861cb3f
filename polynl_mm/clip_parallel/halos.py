"""Exchanging a few frames with the neighbours in time, forward and backward."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from polynl_mm.clip_parallel.shares import Share

TIME = 2


class Traffic:
    """How many bytes this rank has sent to its neighbours."""

    sent = 0


def exchange_halos(
    x: Tensor, left: int, right: int, share: Share
) -> tuple[Tensor, Tensor, Tensor]:
    """Fetch the frames before and after those of this rank.

    Args:
        x (Tensor): This rank's frames, (B, C, T, H, W); T is the same on all ranks.
        left (int): How many frames before them are wanted.
        right (int): How many after them.
        share (Share): This rank's.

    Returns:
        tuple[Tensor, Tensor, Tensor]: ``x`` itself, to be used in its place, since its
        gradient takes in what the neighbours did with its frames (nothing else may
        use it); at most ``left`` frames before, and at most ``right`` after: fewer
        where the clip begins or ends.
    """
    return _Halos.apply(x, left, right, share)


class _Halos(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, left, right, share):
        frames = x.shape[TIME]
        ctx.plan = _Plan(frames, left, right, share)
        ctx.share, ctx.shape = share, x.shape
        received = [
            x.new_empty(*x.shape[:TIME], count, *x.shape[TIME + 1 :])
            for _, count in ctx.plan.wanted
        ]
        sent = [x[:, :, start:end].contiguous() for _, start, end in ctx.plan.given]
        _swap(
            [(peer, frames) for (peer, *_), frames in zip(ctx.plan.given, sent)],
            [(peer, t) for (peer, _), t in zip(ctx.plan.wanted, received)],
            share,
        )
        before = [t for (p, _), t in zip(ctx.plan.wanted, received) if p < share.index]
        after = [t for (p, _), t in zip(ctx.plan.wanted, received) if p > share.index]
        empty = x.new_empty(*x.shape[:TIME], 0, *x.shape[TIME + 1 :])
        return (
            x.view_as(x),
            torch.cat([empty, *before], TIME),
            torch.cat([empty, *after], TIME),
        )

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, grad_before, grad_after):
        share, plan = ctx.share, ctx.plan
        sizes = {
            False: [n for p, n in plan.wanted if p < share.index],
            True: [n for p, n in plan.wanted if p > share.index],
        }
        parts = [
            *grad_before.split(sizes[False], TIME),
            *grad_after.split(sizes[True], TIME),
        ]
        returned = [
            grad.new_empty(*grad.shape[:TIME], end - start, *grad.shape[TIME + 1 :])
            for _, start, end in plan.given
        ]
        _swap(
            [(peer, part.contiguous()) for (peer, _), part in zip(plan.wanted, parts)],
            [(peer, t) for (peer, *_), t in zip(plan.given, returned)],
            share,
        )
        # Nobody else has this gradient: `x` is used by one layer alone.
        for (_, start, end), part in zip(plan.given, returned):
            grad[:, :, start:end] += part
        return grad, None, None, None


class _Plan:
    """Who gets which frames, and who gives how many, both in the order of time.

    A halo may be longer than a neighbour's share, and then reaches beyond it.
    """

    def __init__(self, frames: int, left: int, right: int, share: Share):
        index = share.index
        self.given: list[tuple[int, int, int]] = []  # (peer, from, to)
        self.wanted: list[tuple[int, int]] = []  # (peer, how many)
        for peer in range(share.count):
            away = abs(peer - index)
            reach = right if peer < index else left
            covered = (away - 1) * frames
            if 0 < away and reach > covered:
                count = min(frames, reach - covered)
                start = 0 if peer < index else frames - count
                self.given.append((peer, start, start + count))
            reach = left if peer < index else right
            if 0 < away and reach > covered:
                self.wanted.append((peer, min(frames, reach - covered)))


def _swap(given: list, wanted: list, share: Share) -> None:
    """Send tensors to peers of the group and receive others, all at once."""
    operations = [
        dist.P2POp(dist.isend, tensor, share.ranks[peer], share.group)
        for peer, tensor in given
    ] + [
        dist.P2POp(dist.irecv, tensor, share.ranks[peer], share.group)
        for peer, tensor in wanted
    ]
    Traffic.sent += sum(t.numel() * t.element_size() for _, t in given)
    for work in dist.batch_isend_irecv(operations) if operations else ():
        work.wait()
