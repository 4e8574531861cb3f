"""What plugins ask of the ranks that share a clip equally."""

from torch import Tensor

from polynl_mm.clip_parallel.ranks import Ranks
from polynl_mm.clip_parallel.traffic import count_sent


class EqualRanks(Ranks):
    """Ranks of which each holds as much as every other, and so need not say how much.

    Args:
        group (ProcessGroup): The ranks, in the order of their parts.
    """

    def sum(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the sums over all ranks, by one reduction."""
        for tensor in tensors:
            count_sent("sums", tensor)
        return super().sum(*tensors)

    def max(self, tensor: Tensor) -> Tensor:
        """Return the greatest over all ranks, without gradients."""
        count_sent("sums", tensor)
        return super().max(tensor)

    def gather(self, tensor: Tensor, dim: int) -> Tensor:
        """Return all ranks' parts in their order."""
        count_sent("clips", tensor)
        return super().gather(tensor, dim)

    def lengths(self, length: int) -> tuple[int, ...]:
        """Return how long every rank's part is."""
        return (length,) * self.count

    def _lengths(self, length: int, device) -> tuple[int, ...]:
        return self.lengths(length)
