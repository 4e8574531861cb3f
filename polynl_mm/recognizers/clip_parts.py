"""The frames of one long clip, a part at a time."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np


@dataclass
class ClipPart:
    """A part of a clip, and the frames beside it that it looks at.

    Attributes:
        start (int): The number, in the clip, of the first frame that it carries.
        first (int): The first frame of its own.
        last (int): The first frame after its own.
        final (bool): Whether its own frames are the clip's last ones.
        images (list[np.ndarray]): The frames that it carries.
    """

    start: int
    first: int
    last: int
    final: bool
    images: list[np.ndarray]

    def own(self, stride: int) -> slice:
        """Return which features of this part are its own, rather than a neighbour's.

        Args:
            stride (int): How many frames of the clip are one of the features'; it
                divides ``start`` and ``first``.

        Returns:
            slice: Over the features' time axis. Over all parts it takes each feature
            of the clip once.
        """
        start = (self.first - self.start) // stride
        stop = None if self.final else (self.last - self.start) // stride
        return slice(start, stop)


def parts_of(images: Iterable[np.ndarray], own: int, margin: int) -> Iterator[ClipPart]:
    """Cut a clip into parts while it is decoded.

    Args:
        images (Iterable[np.ndarray]): Its frames.
        own (int): How many frames are a part's own; the last part may have fewer.
        margin (int): How many it carries on both sides, where the clip has them.

    Yields:
        ClipPart: In the order of time.
    """
    source, held = iter(images), deque()
    base = first = 0  # the numbers of the first frame held, and of the part's first
    ended = False
    while True:
        stop = first + own + margin
        while not ended and base + len(held) <= stop:  # one more, to see the end
            image = next(source, None)
            if image is None:
                ended = True
            else:
                held.append(image)
        there = base + len(held)
        if first >= there:
            return
        while base < first - margin:
            held.popleft()
            base += 1
        last = min(first + own, there)
        final = ended and last == there
        yield ClipPart(base, first, last, final, list(held)[: stop - base])
        first += own
