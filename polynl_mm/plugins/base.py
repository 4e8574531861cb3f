"""What every plugin shares: its input check, its axes, its identity at the start."""

import math
from numbers import Integral
from typing import Literal

import torch.nn as nn
from mmcv.cnn import build_norm_layer
from torch import Tensor

from polynl_mm.ops.summaries import Holder, gathered, holder
from polynl_mm.plugins.position_encoding import (
    POSITIONS,
    Positions,
    SinePositions,
)

Axes = Literal["spacetime", "space", "time"]
AXES: tuple[Axes, ...] = ("spacetime", "space", "time")


class Plugin(nn.Module):
    """Base class of the blocks: (B, C, *positions) -> same shape.

    A subclass for 2d features sets ``dims = 2`` and takes (B, C, H, W); one for 3d
    features sets ``dims = 3`` and takes (B, C, T, H, W).

    Args:
        in_channels (int): C, at least 1.
        axes (str): The positions that see one another: ``'spacetime'`` for all,
            ``'space'`` for those of one frame, ``'time'`` (3d only) for those of one
            pixel.
        positions (str, optional): ``'sine'``: add learned mixtures of sines of the
            place, along the axes that ``axes`` names, to what the projections read;
            what is passed on beside them stays as it is. None: the block knows no
            order.

    Raises:
        ValueError: If ``in_channels``, ``axes`` or ``positions`` is none of these.
    """

    dims: int
    _abbr_: str

    def __init__(
        self,
        in_channels: int,
        *,
        axes: Axes = "spacetime",
        positions: Positions | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if not is_whole(in_channels, 1):
            raise ValueError(
                f"{name}: in_channels is a whole number from 1, not {in_channels!r}."
            )
        if axes not in AXES:
            raise ValueError(f"{name}: axes is one of {AXES}, not {axes!r}.")
        if axes == "time" and self.dims == 2:
            raise ValueError(
                f"{name}: axes='time' needs a time axis, but {name} takes "
                f"(B, C, H, W); use {name.replace('2d', '3d')}."
            )
        self.in_channels = int(in_channels)
        if positions is not None and positions not in POSITIONS:
            raise ValueError(
                f"{name}: positions is None or one of {POSITIONS}, not {positions!r}."
            )
        self.axes = axes
        self.positions = positions
        self.position_encoding = None
        if positions is not None:
            along = group_shape(tuple(range(self.dims)), axes)
            self.position_encoding = SinePositions(in_channels, self.dims, along)

    def placed(self, x: Tensor) -> Tensor:
        """Return what the projections read: the features and where they lie.

        Args:
            x (Tensor): Features, (B, C, *positions).

        Returns:
            Tensor: ``x`` itself where the plugin has no ``positions``.
        """
        encoding = self.position_encoding
        return x if encoding is None else x + encoding(x, self.others)

    @property
    def others(self) -> Holder | None:
        """Who holds positions that this block's own ones see; None for nobody."""
        return None if self.dims == 2 or self.axes == "space" else holder()

    def others_of_keys(self) -> Holder | None:
        """Who holds them where sums travel, not the few positions of a pixel."""
        return None if self.axes == "time" else self.others

    def seen(self, *keys: Tensor) -> tuple[Tensor, ...]:
        """Return those of all parts where these are less than their sums, ``'time'``.

        Args:
            *keys (Tensor): Keys and values of this part, (B * G, K, N).

        Returns:
            tuple[Tensor, ...]: Themselves where sums travel, or nothing.
        """
        return gathered(self.others if self.axes == "time" else None, *keys)

    def reset_parameters(self) -> None:
        """Set the weights as at construction."""
        raise NotImplementedError

    def init_weights(self) -> None:
        """Set the weights as at construction: the name by which MMEngine calls it."""
        self.reset_parameters()

    def check_input(self, x: Tensor) -> None:
        """Refuse features of another shape than this plugin was built for.

        Args:
            x (Tensor): Features, (B, in_channels, *positions).

        Raises:
            ValueError: If the number of axes or channels differs.
        """
        name = type(self).__name__
        layout = "(B, C, H, W)" if self.dims == 2 else "(B, C, T, H, W)"
        if x.dim() != self.dims + 2:
            raise ValueError(
                f"{name} takes features of shape {layout}, but got {tuple(x.shape)}."
            )
        if x.shape[1] != self.in_channels:
            raise ValueError(
                f"{name} was built with in_channels={self.in_channels}, but got "
                f"features of {x.shape[1]} channels, of shape {tuple(x.shape)}."
            )


def build_norm(owner: Plugin, norm_cfg: dict, channels: int) -> tuple[str, nn.Module]:
    """Build a plugin's normalisation, refusing one that it could not use.

    Args:
        owner (Plugin): The plugin, for its dimension and the message.
        norm_cfg (dict): In mmcv's notation.
        channels (int): The channels to normalise.

    Returns:
        tuple[str, nn.Module]: The name mmcv gives the layer, and the layer.

    Raises:
        ValueError: If the layer is of another dimension, or has no weight to start at
            zero.
    """
    if not isinstance(norm_cfg, dict) or "type" not in norm_cfg:
        raise ValueError(
            f"{type(owner).__name__}: norm_cfg is a dict such as dict(type='BN'), not "
            f"{norm_cfg!r}."
        )
    try:
        name, layer = build_norm_layer(norm_cfg, channels)
    except (AssertionError, TypeError, ValueError) as error:
        needs_groups = norm_cfg["type"] == "GN" and "num_groups" not in norm_cfg
        missing = "it needs num_groups" if needs_groups else "its arguments do not fit"
        reason = str(error) or missing
        raise ValueError(
            f"{type(owner).__name__}: norm_cfg={norm_cfg} cannot be built: {reason}."
        ) from error
    kind, wanted = type(layer).__name__, f"{owner.dims}d"
    if kind[-2:] in ("1d", "2d", "3d") and not kind.endswith(wanted):
        raise ValueError(
            f"{type(owner).__name__}: norm_cfg type {norm_cfg['type']!r} is a {kind}; "
            f"use one for {wanted} features, such as 'BN{wanted}'."
        )
    if getattr(layer, "weight", None) is None:
        raise ValueError(
            f"{type(owner).__name__}: norm_cfg={norm_cfg} has no weight of its own; "
            "set affine=True, or use 'BN' or 'GN'."
        )
    return name, layer


def split_groups(x: Tensor, axes: Axes) -> Tensor:
    """View features as groups of positions that see one another.

    Args:
        x (Tensor): Features, (B, C, H, W) or (B, C, T, H, W).
        axes (str): As in :class:`Plugin`.

    Returns:
        Tensor: (B, C, G, N): for ``'spacetime'`` one group of all positions, for
        ``'space'`` a group a frame, for ``'time'`` a group a pixel.
    """
    if axes == "spacetime" or (axes == "space" and x.dim() == 4):
        return x.flatten(2).unsqueeze(2)
    frames = x.flatten(3)  # (B, C, T, H*W)
    return frames if axes == "space" else frames.transpose(2, 3)


def join_groups(groups: Tensor, axes: Axes, positions: tuple[int, ...]) -> Tensor:
    """Undo :func:`split_groups`.

    Args:
        groups (Tensor): (B, C, G, N).
        axes (str): As given to :func:`split_groups`.
        positions (tuple[int, ...]): The sizes of the axes of positions: (H, W) or
            (T, H, W).

    Returns:
        Tensor: (B, C, *positions).
    """
    if axes == "time":
        groups = groups.transpose(2, 3)
    return groups.reshape(*groups.shape[:2], *positions)


def groups_as_samples(x: Tensor, axes: Axes) -> Tensor:
    """Lay groups of positions out as samples, for operations that know of no groups.

    Args:
        x (Tensor): Features, (B, C, *positions).
        axes (str): As in :class:`Plugin`.

    Returns:
        Tensor: (B * G, C, N).
    """
    return split_groups(x, axes).transpose(1, 2).flatten(0, 1)


def samples_as_groups(
    samples: Tensor, axes: Axes, batch: int, positions: tuple[int, ...]
) -> Tensor:
    """Undo :func:`groups_as_samples`.

    Args:
        samples (Tensor): (B * G, C, N).
        axes (str): As given to :func:`groups_as_samples`.
        batch (int): B.
        positions (tuple[int, ...]): The sizes of the axes of positions.

    Returns:
        Tensor: (B, C, *positions).
    """
    # Told, because an empty batch does not tell it.
    count = math.prod(positions) // math.prod(group_shape(positions, axes))
    groups = samples.unflatten(0, (batch, count)).transpose(1, 2)  # (B, C, G, N)
    return join_groups(groups, axes, positions)


def group_shape(positions: tuple[int, ...], axes: Axes) -> tuple[int, ...]:
    """Return the sizes of the axes along which the positions of one group lie.

    Args:
        positions (tuple[int, ...]): (H, W) or (T, H, W).
        axes (str): As in :class:`Plugin`.

    Returns:
        tuple[int, ...]: All of them for ``'spacetime'``, (H, W) for ``'space'``, (T,)
        for ``'time'``.
    """
    return {
        "spacetime": positions,
        "space": positions[-2:],
        "time": positions[:-2],
    }[axes]


def is_whole(value: object, low: int, high: float = math.inf) -> bool:
    """Return whether an argument is a whole number of a range, numpy's among them.

    Args:
        value (object): What was given.
        low (int): The least allowed.
        high (float): The greatest allowed.

    Returns:
        bool: Whether it is; False for True and False.
    """
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    return whole and low <= value <= high


def check_whole(owner: object, name: str, value: int, low: int, high: int) -> None:
    """Refuse an argument that is no whole number of a range.

    Args:
        owner (object): The plugin, for the message.
        name (str): The argument.
        value (int): What was given.
        low (int): The least allowed.
        high (int): The greatest allowed.

    Raises:
        ValueError: If ``value`` is none of these numbers.
    """
    if not is_whole(value, low, high):
        raise ValueError(
            f"{type(owner).__name__}: {name} is a whole number from {low} to {high}, "
            f"not {value!r}."
        )


# Wider than any network's features; a width beyond it is a slip.
_WIDEST = 2**16


def inner_width(
    owner: Plugin, reduction: int, width: int | None, name: str = "inner_channels"
) -> int:
    """Return the width of inner projections, given in one of two ways.

    Args:
        owner (Plugin): The plugin.
        reduction (int): The width is ``in_channels // reduction``, from 1 to C.
        width (int, optional): The width itself, which overrides ``reduction``.
        name (str): The argument that ``width`` is, for the message.

    Returns:
        int: The width, at least 1.

    Raises:
        ValueError: If what is given is no whole number of its range.
    """
    check_whole(owner, "reduction", reduction, 1, owner.in_channels)
    if width is None:
        return owner.in_channels // reduction
    check_whole(owner, name, width, 1, _WIDEST)
    return width
