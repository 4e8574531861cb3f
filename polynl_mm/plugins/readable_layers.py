"""Whether a layer's weight and bias tell all that it does.

Most blocks fold projections into one another, and read their weights in place of
calling them. Of a layer with hooks that would leave out what these do: prune, and set
the weight anew (torch's older ``weight_norm``, ``prune`` and ``spectral_norm``), look,
or change the output. Of a layer of another kind, such as an adapter around a
convolution, it would leave out what it adds. Such layers are called.
"""

import mmcv.cnn
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

# torch's, and mmcv's, which are the same for features that are not empty.
_KNOWN = (nn.Conv2d, nn.Conv3d, mmcv.cnn.Conv2d, mmcv.cnn.Conv3d, nn.LayerNorm)
_HOOKS = (
    "_forward_pre_hooks",
    "_forward_hooks",
    "_backward_pre_hooks",
    "_backward_hooks",
)
# Those by which MMEngine and fvcore tell the layers of a trace, and nothing else.
_OF_COUNTERS = ("ScopePushHook", "ScopePopHook")


def are_readable(*layers: nn.Module | None) -> bool:
    """Return whether layers are told by their weights and biases alone.

    Args:
        *layers (nn.Module | None): Projections and norms of a plugin; None is told.

    Returns:
        bool: False where one has a hook, or is no convolution or LayerNorm of torch's
        or mmcv's, with or without parametrizations.
    """
    return all(layer is None or _is_readable(layer) for layer in layers)


def is_one_convolution(layer: nn.Module, *others: str) -> bool:
    """Return whether a layer is told by the weight and bias of its child ``conv``.

    Args:
        layer (nn.Module): As mmcv's ConvModule names its children.
        *others (str): Children that are seen to elsewhere.

    Returns:
        bool: False where it has hooks, no ``conv``, more than that, or one that is not
        readable.
    """
    children = dict(layer.named_children())
    conv = children.pop("conv", None)
    if conv is None or set(children) - set(others) or _has_hooks(layer):
        return False
    return are_readable(conv)


def _is_readable(layer: nn.Module) -> bool:
    kind = type(layer)
    if kind not in _KNOWN and not (is_parametrized(layer) and kind.__base__ in _KNOWN):
        return False
    return not _has_hooks(layer)


def _has_hooks(layer: nn.Module) -> bool:
    return any(
        type(hook).__name__ not in _OF_COUNTERS
        for name in _HOOKS
        for hook in getattr(layer, name).values()
    )
