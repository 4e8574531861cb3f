"""Plugins that train, whatever their backbone freezes.

Some of MMAction2's backbones turn off the gradients of every BatchNorm below them when
they are set to training (``bn_frozen`` of CSN, ``partial_bn`` of TSN and TSM). Of a
plugin that starts as the identity by a norm, whose weight is zero, nothing would learn.
"""

from functools import partial
from typing import Any

from torch import nn

from polynl_mm.backbones.initial_weights import modules_at


def keep_plugins_trainable(module: nn.Module, inserted: list[str]) -> None:
    """Have no ``train`` of a network change which weights of its plugins learn.

    Args:
        module (nn.Module): The network.
        inserted (list[str]): The paths of plugins in it.
    """
    for path in inserted:
        parts = path.split(".")
        for depth in range(len(parts)):
            owner = module.get_submodule(".".join(parts[:depth]))
            if type(owner).train is not nn.Module.train:
                known = getattr(owner, "trainable_plugins", [])
                owner.trainable_plugins = [*known, ".".join(parts[depth:])]
                # A callable of this module, so that a copy or a pickle has its own.
                owner.train = partial(train, owner)


def train(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Set the mode as the class does; what plugins learn stays as it was."""
    weights = [
        (weight, weight.requires_grad)
        for plugin in modules_at(self, self.trainable_plugins).values()
        for weight in plugin.parameters()
    ]
    result = type(self).train(self, *args, **kwargs)
    for weight, learns in weights:
        weight.requires_grad_(learns)
    return result
