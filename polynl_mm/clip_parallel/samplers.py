"""MMEngine's samplers, giving the ranks that share clips the same samples."""

import contextlib
from collections.abc import Iterator

from mmengine.dataset import DefaultSampler, InfiniteSampler, sampler
from mmengine.dist import get_dist_info
from mmengine.registry import DATA_SAMPLERS

from polynl_mm.clip_parallel.shares import group_of
from polynl_mm.user_errors import UserError


class _ByGroup:
    """Deals samples out to groups of ranks in place of ranks.

    Args:
        ranks (int): How many ranks share a clip.
        **kwargs: As for MMEngine's sampler.
    """

    def __init__(self, dataset, *, ranks: int, **kwargs):
        # MMEngine's samplers read their place in their constructor only.
        place = group_of(*get_dist_info(), ranks)
        with _taken_for(place):
            super().__init__(dataset, **kwargs)


@contextlib.contextmanager
def _taken_for(place: tuple[int, int]) -> Iterator[None]:
    """Have MMEngine's samplers take this process for another place."""
    original = sampler.get_dist_info
    sampler.get_dist_info = lambda: place
    try:
        yield
    finally:
        sampler.get_dist_info = original


@DATA_SAMPLERS.register_module()
class DefaultSamplerByGroup(_ByGroup, DefaultSampler):
    """MMEngine's DefaultSampler for ranks that share clips."""


@DATA_SAMPLERS.register_module()
class InfiniteSamplerByGroup(_ByGroup, InfiniteSampler):
    """MMEngine's InfiniteSampler for ranks that share clips."""


BY_GROUP = {
    "DefaultSampler": "DefaultSamplerByGroup",
    "InfiniteSampler": "InfiniteSamplerByGroup",
}


def sample_by_group(loader: dict, name: str, ranks: int) -> None:
    """Have a data loader give the ranks of a group the same samples; in place.

    Args:
        loader (dict): Its config.
        name (str): Its key, for the sentence.
        ranks (int): How many ranks share a clip.

    Raises:
        UserError: If its sampler is not known.
    """
    given = loader.get("sampler") or {}
    kind = given.get("type") if isinstance(given, dict) else type(given)
    kind = getattr(kind, "__name__", str(kind)).rpartition(".")[2]
    if kind not in BY_GROUP or loader.get("batch_sampler"):
        raise UserError(
            f"Clips cannot be shared over ranks: {name}.sampler is a {kind}, or there "
            f"is a batch_sampler; take one of {', '.join(BY_GROUP)}."
        )
    loader["sampler"] = {
        **given, "type": BY_GROUP[kind], "_scope_": "mmengine", "ranks": ranks
    }  # fmt: skip
