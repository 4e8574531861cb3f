"""What plugins ask of the ranks that share a clip equally."""

from polynl_mm.clip_parallel.ranks import Ranks


class EqualRanks(Ranks):
    """Ranks of which each holds as much as every other, and so need not say how much.

    Args:
        group (ProcessGroup): The ranks, in the order of their parts.
    """

    def lengths(self, length: int) -> tuple[int, ...]:
        """Return how long every rank's part is."""
        return (length,) * self.count

    def _lengths(self, length: int, device) -> tuple[int, ...]:
        return self.lengths(length)
