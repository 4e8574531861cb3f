"""Which part of each clip this rank holds: an equal share of its frames, in order.

Ranks 0 to R - 1 share the clips of the first group, the next R those of the second, and
so on. At every layer each rank of a group holds equally many frames, so that no rank
has to ask another one where its frames lie.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch.distributed as dist

from polynl_mm.clip_parallel.lengths import UnevenSharesError

_current: "Share | None" = None


@dataclass(frozen=True)
class Share:
    """This rank's part of the clips of its group.

    Attributes:
        index (int): Which part, from 0, in the order of time.
        count (int): How many ranks share a clip.
        ranks (tuple[int, ...]): These ranks, as torch.distributed numbers them.
        group (ProcessGroup | None): Their process group; None where the others are
            only imagined, to find out what a network would do.
    """

    index: int
    count: int
    ranks: tuple[int, ...]
    group: dist.ProcessGroup | None

    def cut(self, frames: int) -> tuple[int, int]:
        """Return the first frame of this rank, and the first after it.

        Args:
            frames (int): How many the whole clip has, a multiple of ``count``.

        Returns:
            tuple[int, int]: From and to.
        """
        own = frames // self.count
        return self.index * own, (self.index + 1) * own


def group_of(rank: int, world_size: int, ranks: int) -> tuple[int, int]:
    """Return which group a rank is in, and how many there are.

    Args:
        rank (int): As torch.distributed numbers it.
        world_size (int): How many ranks there are, a multiple of ``ranks``.
        ranks (int): How many share a clip.

    Returns:
        tuple[int, int]: The group, from 0, and the number of groups.
    """
    return rank // ranks, world_size // ranks


def form_groups(ranks: int) -> Share:
    """Form the groups of ranks that share clips; every rank calls this.

    Args:
        ranks (int): How many share a clip; divides the number of all.

    Returns:
        Share: This rank's.
    """
    rank, own = dist.get_rank(), None
    for first in range(0, dist.get_world_size(), ranks):
        members = tuple(range(first, first + ranks))
        group = dist.new_group(members)  # torch wants all ranks to form all groups
        if rank in members:
            own = Share(members.index(rank), ranks, members, group)
    return own


def current_share() -> Share | None:
    """Return this rank's share; None where clips are not shared."""
    return _current


@contextlib.contextmanager
def sharing(share: Share | None) -> Iterator[None]:
    """Let networks that are prepared for it share their clips.

    Not bound to a thread: the backward pass runs in threads of its own.

    Args:
        share (Share | None): This rank's.
    """
    global _current
    before, _current = _current, share
    try:
        yield
    finally:
        _current = before


def own_segments(segments: int) -> int:
    """Return how many of a clip's segments this rank holds.

    Args:
        segments (int): How many the whole clip has, in a network that takes frames as
            samples.

    Returns:
        int: All, where clips are not shared.

    Raises:
        UnevenSharesError: If the ranks' shares would be unequal.
    """
    if _current is None:
        return segments
    if segments % _current.count:
        raise UnevenSharesError("a module", segments, _current.count)
    return segments // _current.count
