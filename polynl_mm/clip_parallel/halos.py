"""Exchanging a few frames with the neighbours in time, forward and backward."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from polynl_mm.clip_parallel.shares import Share
from polynl_mm.clip_parallel.traffic import count_sent

TIME = 2


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
    if share.group is None:
        return x, _frames_like(x, 0), _frames_like(x, 0)
    return _Halos.apply(x, left, right, share)


class _Halos(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, left, right, share):
        ctx.plan = plan = _Plan(x.shape[TIME], left, right, share)
        sent = {p: x[:, :, start:end] for p, (start, end) in plan.given.items()}
        received = {p: _frames_like(x, count) for p, count in plan.wanted.items()}
        _swap(sent, received, share)
        return x.view_as(x), *(
            torch.cat([_frames_like(x, 0), *(received[p] for p in side)], TIME)
            for side in plan.sides
        )

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, *of_halos):
        plan, sent = ctx.plan, {}
        for side, of_halo in zip(plan.sides, of_halos, strict=True):
            parts = of_halo.split([plan.wanted[p] for p in side], TIME)
            sent |= zip(side, parts, strict=True) if side else {}
        received = {
            p: _frames_like(grad, end - start) for p, (start, end) in plan.given.items()
        }
        _swap(sent, received, plan.share)
        # Nobody else has this gradient: `x` is used by one layer alone.
        for peer, (start, end) in plan.given.items():
            grad[:, :, start:end] += received[peer]
        return grad, None, None, None


class _Plan:
    """Who gets which frames, and who gives how many.

    A halo may be longer than a neighbour's share, and then reaches beyond it.

    Attributes:
        given (dict): From a peer to the first of the frames it gets, and that after
            the last.
        wanted (dict): From a peer to how many frames it gives.
        sides (tuple): The peers that give something: those before, and those after.
    """

    def __init__(self, frames: int, left: int, right: int, share: Share):
        self.share, self.given, self.wanted = share, {}, {}
        self.sides: tuple[list[int], list[int]] = ([], [])
        for peer in range(share.count):
            away = abs(peer - share.index)
            before = peer < share.index
            if not away:
                continue
            covered = (away - 1) * frames  # by the peers between
            for_it = min(frames, (right if before else left) - covered)
            from_it = min(frames, (left if before else right) - covered)
            if for_it > 0:
                start = 0 if before else frames - for_it
                self.given[peer] = (start, start + for_it)
            if from_it > 0:
                self.wanted[peer] = from_it
                self.sides[0 if before else 1].append(peer)


def _frames_like(x: Tensor, frames: int) -> Tensor:
    return x.new_empty(*x.shape[:TIME], frames, *x.shape[TIME + 1 :])


def _swap(given: dict[int, Tensor], wanted: dict[int, Tensor], share: Share) -> None:
    """Send tensors to peers of the group and receive others, all at once."""
    operations = []
    for peer, tensor in given.items():
        sent = tensor.contiguous()
        count_sent("halos", sent)
        to = share.ranks[peer]
        operations.append(dist.P2POp(dist.isend, sent, to, share.group))
    for peer, tensor in wanted.items():
        from_ = share.ranks[peer]
        operations.append(dist.P2POp(dist.irecv, tensor, from_, share.group))
    for work in dist.batch_isend_irecv(operations) if operations else ():
        work.wait()
