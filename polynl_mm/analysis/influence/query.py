"""The position whose update is explained, among the positions that it looks at."""

from collections.abc import Iterable
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from polynl_mm.plugins.base import Plugin, group_shape, join_groups, split_groups


class Query:
    """A position of one sample, and its group: the positions that it looks at.

    Args:
        plugin (Plugin): The plugin, whose axes decide on the group.
        x (Tensor): The features of the sample, (C, *positions).
        at (tuple[int, ...]): The position, (y, x) or (t, y, x).
        clips (Tensor): What the plugin takes, of which the sample is a clip as it sees
            it, (1, C, *positions).
        clip (int): Which clip of it.

    Attributes:
        passed_on (Tensor): The features of the sample, (1, C, *positions).
        x (Tensor): What the projections read: the same, and where it lies.
        shape (tuple[int, ...]): The sizes of the group's axes, of product N.
        index (int): The position's number within its group.
    """

    def __init__(
        self, plugin: Plugin, x: Tensor, at: tuple[int, ...], clips: Tensor, clip: int
    ) -> None:
        self.passed_on = x.unsqueeze(0)
        self.x = plugin.placed(self.passed_on)
        self._clips, self._clip = clips, clip
        self._plugin = plugin
        self._axes = plugin.axes
        self._positions = tuple(x.shape[1:])
        self.shape = group_shape(self._positions, plugin.axes)
        # On the CPU, where it is read off without waiting for the features.
        numbers = torch.arange(x[0].numel(), device="cpu")
        numbers = numbers.view(1, 1, *self._positions)
        groups = split_groups(numbers, self._axes)[0, 0]  # (G, N)
        number = int(numbers[(0, 0, *at)])
        self._group, self.index = (groups == number).nonzero()[0].tolist()

    def of_group(self, features: Tensor) -> Tensor:
        """Return what features of the sample hold for the group.

        Args:
            features (Tensor): (1, K, *positions).

        Returns:
            Tensor: (K, N).
        """
        return split_groups(features, self._axes)[0, :, self._group]

    @property
    def features(self) -> Tensor:
        """What the projections read of the group, (C, N)."""
        return self.of_group(self.x)

    def one_hot(self) -> Tensor:
        """Return 1 at the position and 0 elsewhere, (N,)."""
        row = self.x.new_zeros(self.of_group(self.x).shape[1])
        row[self.index] = 1
        return row

    def to_positions(self, terms: Tensor) -> Tensor:
        """Lay the group's terms out over the sample, with zeros elsewhere.

        Args:
            terms (Tensor): (C, N).

        Returns:
            Tensor: (C, *positions).
        """
        numel = self.x[0, 0].numel()
        groups = terms.new_zeros(1, len(terms), numel // terms.shape[1], terms.shape[1])
        groups[0, :, self._group] = terms
        return join_groups(groups, self._axes, self._positions)[0]

    def input_of(self, module: nn.Module) -> Tensor:
        """Run the plugin, and return what goes into a module that it calls once.

        Args:
            module (nn.Module): A module of the plugin.

        Returns:
            Tensor: (1, K, *positions).
        """
        seen = inputs_of(self._plugin, self._clips, [module])[module][0]
        return seen[self._clip : self._clip + 1]


def inputs_of(
    plugin: Plugin, x: Tensor, modules: Iterable[nn.Module]
) -> dict[nn.Module, list[Tensor]]:
    """Run a plugin, and return what went into some of its modules.

    Args:
        plugin (Plugin): The plugin.
        x (Tensor): Its input, (1, C, *positions).
        modules (Iterable[nn.Module]): Modules in it.

    Returns:
        dict[nn.Module, list[Tensor]]: For each, its inputs in the order of its calls.
    """
    found: dict[nn.Module, list[Tensor]] = {}
    with ExitStack() as hooks:
        for module in modules:
            calls = found.setdefault(module, [])
            handle = module.register_forward_pre_hook(
                lambda _, args, calls=calls: calls.append(args[0])
            )
            hooks.callback(handle.remove)
        plugin(x)
    return found
