"""Which positions a non-local block's queries look at: pooling, groups of frames."""

from collections.abc import Callable, Sequence
from numbers import Integral

from torch import Tensor

from polynl_mm.plugins.base import Plugin, check_whole

# More than any axis of features holds.
_MOST = 2**16


def pool_sizes(owner: Plugin, given: int | Sequence[int] | None) -> tuple[int, ...]:
    """Return by how much each axis of positions is pooled.

    Args:
        owner (Plugin): The block, for its dimension and axes.
        given (int | Sequence[int], optional): One number for space alone, by default
            2, which is mmcv's; or one for each of (T, H, W) or (H, W).

    Returns:
        tuple[int, ...]: One number for each axis.

    Raises:
        ValueError: If these are no sizes, or pool along an axis that is not looked at.
    """
    name = type(owner).__name__
    sizes = 2 if given is None else given
    if isinstance(sizes, Integral):
        sizes = (1, sizes, sizes)[-owner.dims :]
    if not isinstance(sizes, list | tuple) or len(sizes) != owner.dims:
        raise ValueError(
            f"{name}: pool_size is a number for space, or one for each of "
            f"{'(T, H, W)' if owner.dims == 3 else '(H, W)'}, not {given!r}."
        )
    for size in sizes:
        check_whole(owner, "each of pool_size", size, 1, _MOST)
    *time, height, width = sizes
    if owner.axes == "time" and max(height, width) > 1:
        raise ValueError(
            f"{name}: sub_sample=True with pool_size={tuple(sizes)} pools over space, "
            "which axes='time' does not look at; set sub_sample=False, or a pool_size "
            "such as (2, 1, 1)."
        )
    if owner.axes == "space" and time and time[0] > 1:
        raise ValueError(
            f"{name}: pool_size={tuple(sizes)} pools over time, which axes='space' "
            f"does not look at; set pool_size={(1, height, width)}."
        )
    return tuple(sizes)


def check_temporal_groups(owner: Plugin, groups: int) -> None:
    """Refuse groups of frames that a block cannot have.

    Args:
        owner (Plugin): The block, for its dimension and axes.
        groups (int): The groups.

    Raises:
        ValueError: If ``groups`` is no whole number from 1, or there is no time axis
            that is looked at.
    """
    check_whole(owner, "temporal_groups", groups, 1, _MOST)
    name = type(owner).__name__
    if groups > 1 and owner.dims == 2:
        raise ValueError(
            f"{name}: temporal_groups={groups} splits a time axis, but {name} takes "
            f"(B, C, H, W); use {name.replace('2d', '3d')}."
        )
    if groups > 1 and owner.axes == "space":
        raise ValueError(
            f"{name}: temporal_groups={groups} limits what is seen in time, where "
            "axes='space' has each frame alone; set temporal_groups=1."
        )


def check_sizes(
    owner: Plugin, x: Tensor, pool_size: tuple[int, ...] | None, groups: int
) -> None:
    """Refuse features that cannot be split into groups, or are too small to pool.

    Args:
        owner (Plugin): The block, for the message.
        x (Tensor): Features, (B, C, *positions).
        pool_size (tuple[int, ...], optional): By how much each axis is pooled.
        groups (int): Groups of frames.

    Raises:
        ValueError: If they do.
    """
    name, shape = type(owner).__name__, tuple(x.shape)
    if x.shape[2] % groups:
        raise ValueError(
            f"{name}: temporal_groups={groups} does not divide the {x.shape[2]} frames "
            f"of features of shape {shape} into equal parts."
        )
    if pool_size is None:
        return
    seen = (x.shape[2] // groups, *x.shape[3:])
    if any(size < pool for size, pool in zip(seen, pool_size, strict=True)):
        raise ValueError(
            f"{name}: sub_sample=True pools by {pool_size}, which is more than the "
            f"{seen} positions to pool in features of shape {shape}."
        )


def check_parts(owner: Plugin, lengths: Sequence[int], pool: int) -> None:
    """Refuse parts of a clip whose borders cut a window of the pooling over time.

    Args:
        owner (Plugin): The block, for the message.
        lengths (Sequence[int]): The frames of each part.
        pool (int): The frames of a window.

    Raises:
        ValueError: If one does.
    """
    if any(length % pool for length in lengths[:-1]) or lengths[-1] < pool:
        raise ValueError(
            f"{type(owner).__name__}: parts of a clip have {tuple(lengths)} frames, "
            f"and pool_size pools {pool} at a time; share it in parts whose frames "
            f"{pool} divides."
        )


def by_temporal_groups(
    block: Callable[[Tensor], Tensor], x: Tensor, groups: int
) -> Tensor:
    """Apply a block to each group of frames as to a clip of its own.

    Args:
        block (Callable): (B, C, T, H, W) -> same shape.
        x (Tensor): Features, (B, C, T, H, W), or of 2d where ``groups`` is 1.
        groups (int): Equal groups of neighbouring frames; divides T.

    Returns:
        Tensor: Features of the same shape.
    """
    if groups == 1:
        return block(x)
    clips = x.unflatten(2, (groups, x.shape[2] // groups)).transpose(1, 2)
    y = block(clips.flatten(0, 1)).unflatten(0, clips.shape[:2])
    return y.transpose(1, 2).flatten(2, 3)
