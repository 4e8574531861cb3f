"""Sums and whole clips over the ranks of a share, which may be imagined only."""

import torch
from torch import Tensor

from polynl_mm.clip_parallel import ranks
from polynl_mm.clip_parallel.equal_ranks import EqualRanks
from polynl_mm.clip_parallel.shares import Share


def all_sum(x: Tensor, share: Share) -> Tensor:
    """Return the sum over the ranks of a group, with no gradient.

    Args:
        x (Tensor): This rank's term.
        share (Share): This rank's.

    Returns:
        Tensor: The same on all of them.
    """
    if share.group is None:
        return x.detach() * share.count
    return ranks.all_sum(x, share.group)


def sum_over_ranks(x: Tensor, share: Share) -> Tensor:
    """Return the sum over the ranks of a group.

    Args:
        x (Tensor): This rank's term.
        share (Share): This rank's.

    Returns:
        Tensor: The same on all of them.
    """
    if share.group is None:
        return x * share.count
    return ranks.summed(x, share.group)


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
    return EqualRanks(share.group).gather(x, dim)


def gather_over_ranks(x: Tensor, share: Share) -> Tensor:
    """Return what all ranks of a group hold.

    Args:
        x (Tensor): This rank's, of the same shape on all.
        share (Share): This rank's.

    Returns:
        Tensor: (ranks, *x.shape), the same on all of them.
    """
    return whole_clip(x.unsqueeze(0), 0, share)
