"""Poly-NL over a clip that comes in parts: its moment is the mean of the parts' own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from polynl_mm.plugins import Pointwise3d, PolyNL3d
from polynl_mm.plugins.base import Plugin
from polynl_mm.user_errors import UserError


class ReachedError(Exception):
    """What a pass over the clip is for has been seen; the rest is not needed."""


class MomentsOfParts:
    """Lets Poly-NL blocks see a whole clip of which they are given parts in turn.

    A block's moment depends on those of the blocks before it, so that each takes one
    pass over the clip, in which its parts' moments are summed; afterwards it gates with
    their mean. A moment is K numbers, however long the clip.

    Args:
        backbone (nn.Module): With blocks.
        strides (dict[str, int]): The plugins that run, in their order: see
            :class:`polynl_mm.clip_parallel.temporal_reach.TemporalReach`.

    Attributes:
        passes (list[str]): The blocks that need one, in order.

    Raises:
        UserError: If a plugin is there that looks over time and is no Poly-NL.
    """

    def __init__(self, backbone: nn.Module, strides: dict[str, int]):
        self._strides = strides
        self._plugins = {path: backbone.get_submodule(path) for path in strides}
        self.passes = [
            path for path, plugin in self._plugins.items() if _needs_all(path, plugin)
        ]
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = dict.fromkeys(self.passes, 0)
        self._wanted: str | None = None
        self._own: Callable[[int], slice] = lambda stride: slice(None)

    @contextmanager
    def reading(
        self, wanted: str | None, own: Callable[[int], slice]
    ) -> Iterator[None]:
        """Give the blocks a part of the clip within the block.

        Args:
            wanted (str | None): Whose moment the pass is for, of :attr:`passes` in
                their order; None for the pass that uses them all.
            own (Callable[[int], slice]): Which features are the part's own, by how many
                frames one of them is.

        Raises:
            ReachedError: By the block whose moment is wanted.
        """
        self._wanted, self._own = wanted, own
        for path in self.passes:
            plugin = self._plugins[path]
            vars(plugin)["forward"] = partial(self._forward, path, plugin)
        try:
            yield
        finally:
            for path in self.passes:
                vars(self._plugins[path]).pop("forward")

    def _forward(self, path: str, plugin: PolyNL3d, x: Tensor) -> Tensor:
        forward = partial(type(plugin).forward, plugin)
        if path != self._wanted:
            mean = self._sums[path] / self._counts[path]
            with _gating_by(plugin, lambda moment: mean.to(moment.dtype)):
                return forward(x)
        own = x[:, :, self._own(self._strides[path])]
        if own.shape[2]:
            seen = []
            with _gating_by(plugin, lambda moment: seen.append(moment) or moment):
                forward(own)
            moment = seen[0].double() * own.shape[2]  # (B, G, K)
            self._sums[path] = self._sums.get(path, 0) + moment
            self._counts[path] += own.shape[2]
        raise ReachedError


def _needs_all(path: str, plugin: Plugin) -> bool:
    if plugin.axes == "space" or isinstance(plugin, Pointwise3d):
        return False
    if not isinstance(plugin, PolyNL3d):
        raise UserError(
            f"The plugin {path} ({type(plugin).__name__}) cannot read a clip in parts "
            "yet; PolyNL3d can, and every plugin with axes='space'."
        )
    if plugin.positions is not None:
        raise UserError(
            f"The plugin {path} has positions={plugin.positions!r}, which tell places "
            "relative to a clip's length, and a part does not know that; "
            "--whole-video takes plugins without."
        )
    return True


@contextmanager
def _gating_by(plugin: PolyNL3d, replace: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Put another moment in the place of the one of the features at hand."""
    own = vars(plugin)
    kept = {name: own[name] for name in ("moment_norm",) if name in own}
    normalise = plugin.normalise_heads if plugin.moment_norm is not None else None

    def moment_of(moment: Tensor) -> Tensor:
        moment = replace(moment)
        return moment if normalise is None else normalise(moment)

    norm = plugin.moment_norm
    own["moment_norm"] = norm if norm is not None else torch.nn.Identity()
    own["normalise_heads"] = moment_of
    try:
        yield
    finally:
        for name in ("moment_norm", "normalise_heads"):
            own.pop(name)
        own.update(kept)
