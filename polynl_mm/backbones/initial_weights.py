"""The identity at the start, kept through a backbone's own initialisation.

MMAction2's backbones set every norm weight below them to 1 and every convolution to
their own scheme, which would end it.
"""

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn

from polynl_mm.plugins import Plugin


def keep_plugins_through_init_weights(module: nn.Module, inserted: list[str]) -> None:
    """Have ``module.init_weights`` give plugins their own initial weights.

    The first time these are the ones that they were made with. Again, or where they
    were made without numbers (on the meta device), they are made anew.

    Args:
        module (nn.Module): The network; nothing is done where it has no such method.
        inserted (list[str]): The paths of plugins in it.
    """
    if not hasattr(module, "init_weights"):
        return
    known = getattr(module, "plugin_paths", [])
    module.plugin_paths = [*known, *inserted]
    fresh = [
        path
        for path in inserted
        if not any(p.is_meta for p in module.get_submodule(path).parameters())
    ]
    module.fresh_plugins = [*getattr(module, "fresh_plugins", []), *fresh]
    # Callables of this module, so that a deep copy or a pickle has its own.
    module.init_weights = partial(init_weights, module)


def modules_at(network: nn.Module, paths: Iterable[str]) -> dict[str, nn.Module]:
    """Return the modules that are still there: a user may have cut a network.

    Args:
        network (nn.Module): The network.
        paths (Iterable[str]): Where modules were.

    Returns:
        dict[str, nn.Module]: By path.
    """
    found = dict(network.named_modules(remove_duplicate=False))
    return {path: found[path] for path in paths if path in found}


def init_weights(self: nn.Module, *args: Any, **kwargs: Any) -> None:
    """Initialise the backbone; plugins have their own start, or what is loaded."""
    plugins = modules_at(self, self.plugin_paths)
    initial = {
        path: copy.deepcopy(plugin.state_dict())
        for path, plugin in plugins.items()
        # Another's plugin need not know how it starts.
        if path in self.fresh_plugins or not isinstance(plugin, Plugin)
    }
    with _watch_loading(list(plugins.values())) as loaded:
        type(self).init_weights(self, *args, **kwargs)
    for path, plugin in plugins.items():
        if plugin in loaded:
            continue
        if path in initial:
            plugin.load_state_dict(initial[path])
        else:
            plugin.init_weights()
    self.fresh_plugins = []


@contextmanager
def _watch_loading(plugins: list[nn.Module]) -> Iterator[set[nn.Module]]:
    """Note which plugins a state dict has weights for, and excuse it for the others.

    Some backbones load their pretrained weights strictly, and a checkpoint of the plain
    backbone has none for its plugins.
    """
    loaded: set[nn.Module] = set()

    def note(plugin: nn.Module, state_dict: dict, prefix: str, *_: Any) -> None:
        if any(key.startswith(prefix) for key in state_dict):
            loaded.add(plugin)
        else:
            own = plugin.state_dict(prefix=prefix)
            state_dict.update(own)

    handles = [plugin.register_load_state_dict_pre_hook(note) for plugin in plugins]
    try:
        yield loaded
    finally:
        for handle in handles:
            handle.remove()
