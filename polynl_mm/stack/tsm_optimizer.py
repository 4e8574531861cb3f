"""Every trainable parameter in TSM's optimizer.

Mends: ``TSMOptimWrapperConstructor`` of mmaction2 1.2.0 leaves out parameters that a
module with children holds itself, and stops at a layer that it does not know; plugins
have both.
"""

import functools
from collections.abc import Iterator
from typing import Any

from torch import nn

_KNOWN = (
    nn.modules.conv._ConvNd,
    nn.Linear,
    nn.modules.batchnorm._BatchNorm,
    nn.GroupNorm,
)


def include_all_parameters(of: type[nn.Module]) -> None:
    """Have MMAction2's optimizer constructor for TSM and TSN leave no parameter out.

    ``TSMOptimWrapperConstructor`` of mmaction2 1.2.0 sorts the parameters of
    convolutions, linear layers and norms into groups, and silently drops those that a
    module with children holds itself, such as ``alpha`` and ``beta`` of ``PolyNL3d``:
    a plugin that starts as the identity would never leave it. It raises at a layer of
    another kind, such as a plugin's LayerNorm. The parameters of both get a group with
    the base learning rate and no weight decay. Where there are none, nothing changes.
    Safe to call again.

    Args:
        of (type[nn.Module]): The class of the plugins, in which a layer may be of any
            kind; elsewhere an unknown one is refused as ever.
    """
    from mmaction.engine.optimizers import TSMOptimWrapperConstructor as Constructor

    original = Constructor.add_params
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def add_params(self, params: list[dict], model: nn.Module, **kwargs: Any) -> None:
        original(self, params, _KnownLayers(model, of), **kwargs)
        grouped = {id(p) for group in params for p in group["params"]}
        dropped = [
            p for p in model.parameters() if p.requires_grad and id(p) not in grouped
        ]
        if dropped:
            params.append(dict(params=dropped, lr=self.base_lr, weight_decay=0.0))

    Constructor.add_params = add_params


class _KnownLayers:
    """What the constructor sees of a model: no layer of a plugin that it would refuse.

    Args:
        model (nn.Module): The model.
        of (type[nn.Module]): The class of plugins.
    """

    def __init__(self, model: nn.Module, of: type[nn.Module]) -> None:
        self._model, self._of = model, of

    def modules(self) -> Iterator[nn.Module]:
        """Yield the model's modules in their order."""
        of_plugins = {
            layer
            for plugin in self._model.modules()
            if isinstance(plugin, self._of)
            for layer in plugin.modules()
            if not isinstance(layer, _KNOWN)
        }
        for module in self._model.modules():
            if module not in of_plugins:
                yield module
