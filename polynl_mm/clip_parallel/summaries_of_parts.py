"""A clip that comes in parts, one after the other: its blocks see all of it.

What a block sums over positions depends on the blocks before it, and on what it has
summed itself before. So every sum takes one pass over the clip, in which the terms of
its parts are added up; afterwards the block is given their sum. A sum is small, however
long the clip.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from polynl_mm.ops.summaries import shared_among
from polynl_mm.plugins.base import Plugin
from polynl_mm.user_errors import UserError

# Of the features on which the questions of a block are counted.
_TRIAL = 8


class ReachedError(Exception):
    """What a pass over the clip is for has been seen; the rest is not needed."""


class SummariesOfParts:
    """Lets plugins see a whole clip of which they are given parts in turn.

    Args:
        backbone (nn.Module): With plugins, in evaluation.
        strides (dict[str, int]): The plugins that run, in their order, by how many
            frames of the clip one of their features is.

    Attributes:
        passes (list[str]): What needs one, in order.

    Raises:
        UserError: If a plugin needs the positions of other parts themselves, for which
            no memory is enough.
    """

    def __init__(self, backbone: nn.Module, strides: dict[str, int]):
        self._strides = strides
        self._plugins: dict[str, Plugin] = {}
        self._holders: dict[str, _Parts] = {}
        self._places: dict[str, tuple[str, int]] = {}
        for path in strides:
            plugin = backbone.get_submodule(path)
            questions = _questions(path, plugin)
            if questions:
                self._plugins[path] = plugin
                self._holders[path] = _Parts(_named(path, plugin))
            for place in range(questions):
                of = f" ({place + 1} of {questions})" if questions > 1 else ""
                self._places[f"{path}{of}"] = path, place
        self.passes = list(self._places)
        self._wanted: str | None = None
        self._begun: object = self
        self._own: Callable[[int], slice] = lambda stride: slice(None)

    @contextmanager
    def reading(
        self, wanted: str | None, own: Callable[[int], slice]
    ) -> Iterator[None]:
        """Give the blocks a part of the clip within the block.

        Args:
            wanted (str | None): What the pass is for, of :attr:`passes` in their order;
                None for the pass that uses them all.
            own (Callable[[int], slice]): Which features are the part's own, by how many
                frames one of them is.

        Raises:
            ReachedError: By the block whose sum is wanted.
        """
        if wanted != self._begun:
            for holder in self._holders.values():
                holder.begin_pass()
        self._wanted = self._begun = wanted
        self._own = own
        for path, plugin in self._plugins.items():
            vars(plugin)["forward"] = partial(self._forward, path, plugin)
        try:
            yield
        finally:
            for plugin in self._plugins.values():
                vars(plugin).pop("forward")

    def _forward(self, path: str, plugin: Plugin, x: Tensor) -> Tensor:
        holder, own = self._holders[path], self._own(self._strides[path])
        first, last, _ = own.indices(x.shape[2])
        of, place = self._places.get(self._wanted, (None, None))
        if of != path:
            with shared_among(holder.answering(first)):
                y = type(plugin).forward(plugin, x)
            holder.seen += max(0, last - first)
            return y
        if last > first:
            try:
                with shared_among(holder.adding(place)):
                    type(plugin).forward(plugin, x[:, :, own])
            except ReachedError:
                pass
            holder.seen += last - first
        raise ReachedError


class _Parts:
    """A :class:`polynl_mm.ops.summaries.Holder` of parts before and after this one."""

    def __init__(self, name: str):
        self._name = name
        self._totals: list = []
        self.seen = 0  # frames of this pass that were a part's own
        self._asked = self._margin = 0
        self._wanted: int | None = None

    def begin_pass(self) -> None:
        """Begin again with the first part."""
        self.seen = 0

    def answering(self, margin: int) -> "_Parts":
        """Answer from what all parts gave, to one with frames before its own."""
        self._asked, self._margin, self._wanted = 0, margin, None
        return self

    def adding(self, wanted: int) -> "_Parts":
        """Add up the answers to one question, and answer those before it."""
        self._asked, self._margin, self._wanted = 0, 0, wanted
        return self

    def _answer(self, given, merge: Callable):
        place, self._asked = self._asked, self._asked + 1
        if place != self._wanted:
            return self._totals[place]
        if place == len(self._totals):
            self._totals.append(given)
        else:
            self._totals[place] = merge(self._totals[place], given)
        raise ReachedError

    def sum(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the sums over all parts, added in float64."""
        totals = self._answer(
            [t.double() for t in tensors],
            lambda before, now: [a + b for a, b in zip(before, now, strict=True)],
        )
        pairs = zip(totals, tensors, strict=True)
        return tuple(total.to(t.dtype) for total, t in pairs)

    def max(self, tensor: Tensor) -> Tensor:
        """Return the greatest over all parts."""
        return self._answer(tensor, torch.maximum)

    def place(self, length: int) -> tuple[int, int]:
        """Return where this part begins, and how long the whole is."""
        whole = self._answer(length, lambda before, now: before + now)
        return self.seen - self._margin, whole

    def gather(self, tensor: Tensor, dim: int) -> Tensor:
        """Refuse: the parts together are what memory has no room for."""
        raise _needs_positions(self._name)

    def lengths(self, length: int) -> tuple[int, ...]:
        """Refuse, as :meth:`gather`."""
        raise _needs_positions(self._name)


class _Trial(_Parts):
    """Counts the questions of a block that has all positions."""

    def _answer(self, given, merge: Callable):
        self._asked += 1
        return given

    def place(self, length: int) -> tuple[int, int]:
        return 0, self._answer(length, max)

    @property
    def questions(self) -> int:
        return self._asked


def _questions(path: str, plugin: Plugin) -> int:
    weight = next(plugin.parameters())
    sizes = [_TRIAL] * plugin.dims
    x = weight.new_zeros(1, plugin.in_channels, *sizes)
    trial = _Trial(_named(path, plugin))
    with torch.no_grad(), shared_among(trial):
        plugin(x)
    return trial.questions


def _named(path: str, plugin: Plugin) -> str:
    return f"{path} ({type(plugin).__name__})"


def _needs_positions(name: str) -> UserError:
    return UserError(
        f"The plugin {name} compares each position with every other one, and has to "
        "keep all of a clip's features: it cannot read a clip in parts. PolyNL3d and "
        "the other blocks of linear cost can, and every plugin with axes='space'."
    )
