"""Who holds the other positions of a clip, and what is asked of them.

What a block needs to know of all positions is a summary that adds up over the parts of
a clip, and whose size does not depend on their length. Decided:

- An operation does not look for the others by itself. It takes them as ``others``, None
  for nobody, and then does what it always did. The plugins know which positions see one
  another, and hand on :func:`holder` or nobody.
- A part divides nothing by its own number of positions: it gives sums and the number,
  in one message, and all divide by the whole. So parts may be of unequal length.
- A softmax over positions has its maximum agreed on first, of which it does not depend,
  so that no gradient flows through :meth:`Holder.max`; then it is a sum like another.
- All of a part's questions come in the same order in every part, whatever its length.
- The holder is one for the process, not for a thread: a backward pass that computes
  activations again does so in threads of its own.
"""

import contextlib
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor


class Holder(Protocol):
    """What answers for the other parts of a clip, all of which ask the same."""

    def sum(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the sums over all parts, with gradients to all, in one message.

        Args:
            *tensors (Tensor): This part's terms, of the same shapes in every part.

        Returns:
            tuple[Tensor, ...]: Of these shapes and types.
        """
        ...

    def max(self, tensor: Tensor) -> Tensor:
        """Return the greatest over all parts, element by element, without gradients.

        Args:
            tensor (Tensor): This part's, of the same shape in every part.

        Returns:
            Tensor: Of this shape and type.
        """
        ...

    def gather(self, tensor: Tensor, dim: int) -> Tensor:
        """Return all parts in their order, with gradients to all.

        Args:
            tensor (Tensor): This part's.
            dim (int): The axis along which the parts follow one another, of any length
                in each.

        Returns:
            Tensor: The whole, the same in every part.
        """
        ...

    def place(self, length: int) -> tuple[int, int]:
        """Return where this part begins in the whole, and how long the whole is.

        Args:
            length (int): How long this part is: frames or positions.

        Returns:
            tuple[int, int]: What lies before it, and all, in the same measure.
        """
        ...

    def lengths(self, length: int) -> tuple[int, ...]:
        """Return how long every part is, in order.

        Args:
            length (int): How long this one is.

        Returns:
            tuple[int, ...]: One for each part.
        """
        ...


_holder: Holder | None = None


def holder() -> Holder | None:
    """Return who holds the other positions of this clip; None for nobody."""
    return _holder


@contextlib.contextmanager
def shared_among(others: Holder | None) -> Iterator[None]:
    """Let plugins ask others for what they hold of the clip.

    Args:
        others (Holder, optional): Who answers for the other parts; None for nobody.
    """
    global _holder
    before, _holder = _holder, others
    try:
        yield
    finally:
        _holder = before


def mean_of_all(others: Holder, mean: Tensor, count: int) -> Tensor:
    """Return the mean over the positions of all parts.

    Args:
        others (Holder): Who holds them.
        mean (Tensor): That over this part's.
        count (int): How many this part has.

    Returns:
        Tensor: Of the shape and type of ``mean``.
    """
    # In float64: few numbers, of which a network in training may make high powers.
    wide = mean.double()
    sums, number = others.sum(wide * count, wide.new_tensor([float(count)]))
    return (sums / number).to(mean.dtype)


def softmax_average(logits: Tensor, values: Tensor, others: Holder) -> Tensor:
    """Average the values of all parts by the softmax of the logits of all parts.

    Args:
        logits (Tensor): (B, K, N), in float32 or better.
        values (Tensor): (B, V, N), of that type.
        others (Holder): Who holds the other positions.

    Returns:
        Tensor: (B, V, K).
    """
    highest = others.max(logits.detach().amax(dim=2, keepdim=True))
    weights = (logits - highest).exp()
    total, sums = others.sum(weights.sum(dim=2).unsqueeze(1), values @ weights.mT)
    return sums / total


def gathered(others: Holder | None, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Return the positions of all parts, for what has no summary.

    Args:
        others (Holder, optional): Who holds the others; None for nobody.
        *tensors (Tensor): This part's, (B, K, N) with time the slowest in N.

    Returns:
        tuple[Tensor, ...]: The wholes', in one message.
    """
    if others is None:
        return tensors
    if len(tensors) == 1:
        return (others.gather(tensors[0], 2),)
    whole = others.gather(torch.cat(tensors, dim=1), 2)
    return whole.split([t.shape[1] for t in tensors], dim=1)
