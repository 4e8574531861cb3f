"""Plugins on clips that ranks share: what each rank must know of the others' frames."""

from torch import Tensor

from polynl_mm.clip_parallel.shares import current_share
from polynl_mm.clip_parallel.sums import sum_over_ranks
from polynl_mm.plugins import Plugin, PolyNL3d


class SharedPolyNL3d(PolyNL3d):
    """A PolyNL3d whose clips are shared over ranks: K numbers a sample travel."""

    def scale_moment(self, moment: Tensor) -> Tensor:
        """Take the mean over all ranks of a mean, which are of equal shares."""
        share = current_share()
        if share is not None and self.axes != "space":
            moment = sum_over_ranks(moment / share.count, share)
        return super().scale_moment(moment)


def is_framewise(plugin: Plugin) -> bool:
    """Return whether a plugin treats each frame alone.

    Args:
        plugin (Plugin): Any.

    Returns:
        bool: Whether ranks need nothing of one another for it.
    """
    return plugin.dims == 2 or plugin.axes == "space"


def knows_places_in_time(plugin: Plugin) -> bool:
    """Return whether a plugin is told at which time a frame lies.

    Args:
        plugin (Plugin): Any.

    Returns:
        bool: Whether a rank's first frame would be taken for the clip's.
    """
    return plugin.positions is not None and not is_framewise(plugin)
