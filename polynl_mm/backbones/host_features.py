"""What the features after a module are: told by its layers, or by a trial run."""

from typing import Any

from torch import Tensor, nn

from polynl_mm.plugins import Plugin


def is_told_by_layers(host: nn.Module) -> bool:
    """Return whether a module's layers tell its output's channels for certain.

    Of a residual block they do, and of a Sequential or a single layer; of another
    module, such as one with branches, its last layer need not be what it returns.

    Args:
        host (nn.Module): The module.

    Returns:
        bool: Whether they do.
    """
    return is_residual(host) or isinstance(host, nn.Sequential | nn.Conv2d | nn.Conv3d)


def is_residual(host: nn.Module) -> bool:
    """Return whether a module is made as ResNet's blocks are.

    Args:
        host (nn.Module): The module.

    Returns:
        bool: By the names of its convolutions.
    """
    return hasattr(host, "conv1") and hasattr(host, "conv2")


def layers_before(module: nn.Module, path: str) -> list[nn.Module]:
    """Return the layers whose last ones tell what the module at ``path`` gives.

    They are those of a block's last convolution (``conv3`` of a bottleneck), because
    what a block registers after it, such as squeeze-and-excitation or a plugin, need
    not end in its channels. Elsewhere they are the module's own or, where it has no
    shape of its own (an activation, say), those of the Sequentials that end in it.

    Args:
        module (nn.Module): The network.
        path (str): The module in it.

    Returns:
        list[nn.Module]: In the order of registration.
    """
    layers: list[nn.Module] = []
    while path:
        host = module.get_submodule(path)
        numbered = [getattr(host, f"conv{i}", None) for i in range(1, 10)]
        convolutions = [conv for conv in numbered if isinstance(conv, nn.Module)]
        layers = _own_layers(convolutions[-1] if convolutions else host)
        path = path.rpartition(".")[0]
        known = any(_channels(layer) for layer in layers)
        if known or not isinstance(module.get_submodule(path), nn.Sequential):
            break
    return layers


def check_dims(
    cls: type[nn.Module], path: str, layers: list[nn.Module], segments: int | None
) -> None:
    """Refuse a plugin for features of another dimension.

    Args:
        cls (type[nn.Module]): The plugin.
        path (str): The module it follows.
        layers (list[nn.Module]): From :func:`layers_before`.
        segments (int, optional): The frames that a 2D network sees as samples.

    Raises:
        ValueError: If convolutions or norms say that it does not fit.
    """
    dims, features = getattr(cls, "dims", None), _feature_dims(layers)
    if dims is None or features is None:
        return
    name = cls.__name__
    if dims == 3 and features == 2 and segments is None:
        raise ValueError(
            f"{name} takes (B, C, T, H, W), but {path} gives 2D features; add "
            "num_segments=T, the frames of a clip at that layer, or use "
            f"{name.replace('3d', '2d')}."
        )
    if dims == 3 and features == 3 and segments is not None:
        raise ValueError(
            f"num_segments={segments} is for 2D networks, but {path} gives 3D "
            "features; remove it."
        )
    if dims == 2 and features == 3:
        raise ValueError(
            f"{name} takes (B, C, H, W), but {path} gives 3D features; use "
            f"{name.replace('2d', '3d')}, with axes='space' to treat each frame alone."
        )


def check_outputs(
    cls: type[nn.Module], path: str, outputs: list[Any], segments: int | None, cfg: dict
) -> None:
    """Take the channels from what a module gives, or refuse what no plugin takes.

    Args:
        cls (type[nn.Module]): The plugin.
        path (str): The module it follows.
        outputs (list[Any]): What that gave in a trial run.
        segments (int, optional): The frames that a 2D network sees as samples.
        cfg (dict): The plugin's arguments, which get ``in_channels`` if they lack it.

    Raises:
        ValueError: If it is no tensor, or not laid out as features.
    """
    dims = 2 if segments is not None else getattr(cls, "dims", None)
    for output in outputs:
        if not isinstance(output, Tensor):
            raise ValueError(
                f"{path} gives a {type(output).__name__}, and a plugin takes one "
                "tensor; name a module that gives the features alone."
            )
        # Channels do not depend on the size of the input.
        if output.shape[1] != outputs[0].shape[1] or (
            dims is not None and output.dim() != dims + 2
        ):
            layout = "(B, C, H, W)" if dims == 2 else "(B, C, T, H, W)"
            raise ValueError(
                f"{path} gives features of shape {tuple(output.shape)}, and "
                f"{cls.__name__} takes {layout}; tokens, and features with channels "
                "last, are not supported."
            )
        cfg.setdefault("in_channels", output.shape[1])


def output_channels(path: str, layers: list[nn.Module]) -> int:
    """Return the channels after a block: those of its last norm or convolution.

    Args:
        path (str): The block.
        layers (list[nn.Module]): From :func:`layers_before`.

    Returns:
        int: At least 1.

    Raises:
        ValueError: If no layer tells them.
    """
    known = [channels for layer in layers if (channels := _channels(layer))]
    if not known:
        raise ValueError(
            f"The channels after {path} cannot be found from its layers; give "
            "in_channels in the plugin's cfg."
        )
    return known[-1]


def _own_layers(host: nn.Module) -> list[nn.Module]:
    """Return a module and what is in it, but for plugins."""
    layers = [host]
    for child in host.children():
        if not isinstance(child, Plugin):
            layers += _own_layers(child)
    return layers


def _channels(layer: nn.Module) -> int | None:
    found = getattr(layer, "num_features", getattr(layer, "out_channels", None))
    return found if isinstance(found, int) else None


def _feature_dims(layers: list[nn.Module]) -> int | None:
    """Return 3 or 2 by convolutions and norms, None where none says."""
    for layer in layers:
        if isinstance(layer, nn.Conv3d | nn.BatchNorm3d):
            return 3
        if isinstance(layer, nn.Conv2d | nn.BatchNorm2d):
            return 2
    return None
