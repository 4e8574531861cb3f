"""Building a backbone with plugins in it."""

import copy
import inspect
import itertools
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch.nn as nn
from mmcv.cnn import build_plugin_layer
from mmengine.logging import print_log
from mmengine.registry import MODELS
from torch import Tensor

from polynl_mm.backbones.host_features import (
    check_dims,
    check_outputs,
    is_residual,
    is_told_by_layers,
    layers_before,
    output_channels,
)
from polynl_mm.backbones.initial_weights import keep_plugins_through_init_weights
from polynl_mm.backbones.observed_features import Observed, observe_outputs
from polynl_mm.backbones.placement import find_hosts
from polynl_mm.backbones.trainable_plugins import keep_plugins_trainable
from polynl_mm.clip_parallel.shares import own_segments
from polynl_mm.plugins import Plugin
from polynl_mm.stack.recomputation import mend_with_cp
from polynl_mm.stack.tsm_optimizer import include_all_parameters
from polynl_mm.user_errors import did_you_mean

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@MODELS.register_module()
def WithPlugins(  # noqa: N802 - a registry type, named as one
    *, of: str | type[nn.Module], plugins: dict | Sequence[dict], **backbone: Any
) -> nn.Module:
    """Build a backbone, insert plugins, and return that same backbone.

    The config form of :func:`insert_plugins`. Every key but ``of`` and ``plugins`` goes
    to the backbone, so that it merges over any inherited config::

        model = dict(backbone=dict(
            type='WithPlugins', of='ResNet3dSlowOnly',
            plugins=[dict(cfg=dict(type='PolyNL3d'),
                          stages=(False, True, True, False), blocks='alternate')]))

    Args:
        of (str | type): The backbone's registry type.
        plugins (dict | Sequence[dict]): As in :func:`insert_plugins`.
        **backbone: The backbone's own arguments.

    Returns:
        nn.Module: The backbone. The names of its own parameters do not change.

    Raises:
        ValueError: If ``of`` is no registered backbone, or an entry cannot be met.
    """
    cls = _find_backbone(of) if isinstance(of, str) else of
    # A copy, because ResNet3dSlowFast changes the pathway dicts it is given.
    arguments = copy.deepcopy(backbone)
    with _naming_unknown_arguments(cls, arguments):
        built = cls(**arguments)
    return insert_plugins(built, plugins)


def insert_plugins(module: nn.Module, plugins: dict | Sequence[dict]) -> nn.Module:
    """Insert plugins into a network, in place.

    Works on any ``torch.nn.Module``: with ``stages`` and ``blocks`` on residual
    networks that call their stages ``layer1``, ``layer2``, ..., with ``at`` everywhere.
    A plugin becomes a child of the block it follows, and a forward hook runs it, so
    that the names of the network's own parameters do not change.

    Args:
        module (nn.Module): The network.
        plugins (dict | Sequence[dict]): One or more entries with the keys

            - ``cfg`` (dict): The plugin's registry ``type`` and arguments;
              ``in_channels`` is found from the block where it is not given.
            - ``stages`` (Sequence[bool]): One for each stage; default all.
            - ``blocks`` (str | Sequence[Sequence[int]]): ``'all'`` (default),
              ``'alternate'`` (every other, the last included), ``'last'``,
              ``'before_last'``, or indices for each stage.
            - ``position`` (str): ``'after_block'`` (default), or ``'after_conv1'``,
              ``'after_conv2'``, ``'after_conv3'``, before the residual addition.
            - ``pathway`` (str): ``'slow'``, ``'fast'`` or ``'both'`` (default) on
              two-pathway backbones.
            - ``at`` (str | Sequence[str]): Module paths, in place of the four above.
            - ``num_segments`` (int): The frames that a 2D network sees as samples,
              (B * num_segments, C, H, W), so that a 3d plugin can sit in it.

    Returns:
        nn.Module: ``module``.

    Raises:
        ValueError: If an entry is malformed or cannot be met; nothing is inserted then.
    """
    if not isinstance(plugins, dict | list | tuple):
        raise ValueError(
            "plugins is one dict(cfg=dict(type=...), ...) or a list of such, not "
            f"{plugins!r}."
        )
    entries = [plugins] if isinstance(plugins, dict) else list(plugins)
    if not entries:
        print_log(
            f"{type(module).__name__}: plugins is empty, so none is inserted.",
            logger="current",
            level=logging.WARNING,
        )
    places = [
        (host, entry)
        for entry in entries
        for host in find_hosts(module, _check_entry(entry))
    ]
    observed = observe_outputs(module, _in_doubt(module, places))
    planned = [(host, *_build(module, host, entry, observed)) for host, entry in places]
    inserted = [_attach(module, *plan) for plan in planned]
    keep_plugins_through_init_weights(module, inserted)
    keep_plugins_trainable(module, inserted)
    _log(module, inserted)
    if "mmaction" in sys.modules:
        include_all_parameters(Plugin)
        mend_with_cp()
    return module


def _find_backbone(of: str) -> type[nn.Module]:
    with MODELS.switch_scope_and_registry(None) as registry:
        found = registry.get(of)
    if found is None:  # outside a Runner no default scope points at MMAction2
        if find_spec("mmaction") is None:
            raise ValueError(
                f"WithPlugins: of={of!r} is no registered backbone; MMAction2's need "
                'MMAction2, which is not installed: pip install "mmaction2==1.2.0"'
            )
        from mmaction.registry import MODELS as MMACTION_MODELS

        found = MMACTION_MODELS.get(of)
        if found is None:
            known = {**MODELS.module_dict, **MMACTION_MODELS.module_dict}
            raise ValueError(
                f"WithPlugins: of={of!r} is no registered backbone"
                f"{did_you_mean(of, known) or '.'}"
            )
    return found


def _check_entry(entry: Any) -> dict[str, Any]:
    """Check what an entry says of the plugin, leaving the rest to find_hosts."""
    if not isinstance(entry, dict) or not isinstance(entry.get("cfg"), dict):
        raise ValueError(
            "A plugins entry is a dict with cfg=dict(type=...) and where to put it, "
            f"not {entry!r}."
        )
    cfg, segments = entry["cfg"], entry.get("num_segments")
    cls = _find_plugin(cfg)
    dims = getattr(cls, "dims", None)
    if segments is not None and (not isinstance(segments, int) or segments < 1):
        raise ValueError(f"num_segments is a whole number from 1, not {segments!r}.")
    if segments is not None and dims == 2:
        raise ValueError(
            f"num_segments={segments} is for 3d plugins; {cls.__name__} takes the "
            f"frames one by one: remove it, or use {cls.__name__.replace('2d', '3d')}."
        )
    return {key: value for key, value in entry.items() if key != "num_segments"}


def _find_plugin(cfg: dict[str, Any]) -> type[nn.Module]:
    kind = cfg.get("type")
    if isinstance(kind, type):
        return kind
    with MODELS.switch_scope_and_registry(None) as registry:
        found = registry.get(kind) if isinstance(kind, str) else None
    if found is None:
        raise ValueError(
            f"cfg: type={kind!r} is no registered plugin"
            f"{did_you_mean(str(kind), MODELS.module_dict) or '.'}"
        )
    return found


def _in_doubt(
    module: nn.Module, places: Sequence[tuple[str, dict[str, Any]]]
) -> list[str]:
    """Return the hosts of which the layers do not tell what they give, or whether.

    A network may take a residual block's layers one by one, and never call the block.
    """
    return [
        host
        for host, entry in places
        if not is_told_by_layers(layer := module.get_submodule(host))
        or ("at" in entry and is_residual(layer))
    ]


def _build(
    module: nn.Module, path: str, entry: dict[str, Any], observed: Observed
) -> tuple[str, nn.Module, int | None]:
    """Return the plugin for a host, the name of its kind, and its num_segments."""
    cls, segments = _find_plugin(entry["cfg"]), entry.get("num_segments")
    host = module.get_submodule(path)
    if isinstance(host, nn.modules.batchnorm._BatchNorm):
        raise ValueError(
            f"{path} is a {type(host).__name__}, which SyncBatchNorm would replace, "
            "and the plugin with it; name the block that holds it."
        )
    if isinstance(host, nn.Sequential) and segments is not None:
        raise ValueError(
            f"num_segments does not work after {path}, a Sequential that ends in a "
            "norm; name another module."
        )
    cfg = {**entry["cfg"], "type": cls}
    layers = layers_before(module, path)
    _check_trainable(module, path)
    check_dims(cls, path, layers, segments)
    outputs = observed.outputs.get(path)
    if outputs == [] and observed.ran:
        print_log(
            f"{type(module).__name__}: {path} was not called when the network was "
            f"tried in evaluation, so the {cls.__name__} after it would not run "
            "either; name a module that is called.",
            logger="current",
            level=logging.WARNING,
        )
    if outputs and not is_told_by_layers(host):
        check_outputs(cls, path, outputs, segments, cfg)
    if "in_channels" not in cfg:
        cfg["in_channels"] = output_channels(path, layers)
    with _naming_unknown_arguments(cls, cfg):
        return *build_plugin_layer(cfg), segments


@contextmanager
def _naming_unknown_arguments(
    cls: type[nn.Module], arguments: dict[str, Any]
) -> Iterator[None]:
    """Say which argument a class, or what it hands arguments on to, does not take."""
    try:
        yield
    except (TypeError, AssertionError) as error:
        known: dict[str, inspect.Parameter] = {}
        for base in cls.__mro__:
            if "__init__" in vars(base):
                parameters = inspect.signature(base.__init__).parameters
                known.update(parameters)
                if all(p.kind is not p.VAR_KEYWORD for p in parameters.values()):
                    break  # it hands no others on
        names = [n for n, p in known.items() if n != "self" and p.kind in _NAMED]
        # MMAction2's blocks assert, without a word, that they know what reaches them.
        refused = [name for name in arguments if name not in (*names, "type")]
        if not refused:
            raise
        hint = did_you_mean(refused[0], names) or f"; it takes {', '.join(names)}."
        raise ValueError(
            f"{cls.__name__} takes no argument {refused[0]!r}{hint}"
        ) from error


def _check_trainable(module: nn.Module, path: str) -> None:
    frozen = [m for m in module.modules() if getattr(m, "frozen_stages", -1) >= 0]
    if not frozen:
        return
    module.train(module.training)  # MMAction2's backbones freeze their stages here
    parameters = list(module.get_submodule(path).parameters())
    if parameters and not any(p.requires_grad for p in parameters):
        raise ValueError(
            f"The plugin after {path} would never train, because "
            f"frozen_stages={frozen[0].frozen_stages} freezes its stage; lower "
            "frozen_stages, or leave the stage out of stages (or at)."
        )


def _alike(plugin: nn.Module, network: nn.Module) -> nn.Module:
    """Give a plugin the type, the device and the mode of the network around it."""
    weight = next(network.parameters(), None)
    if weight is not None and weight.is_floating_point():
        plugin.to(device=weight.device, dtype=weight.dtype)
    return plugin.train(network.training)


def _attach(
    module: nn.Module, path: str, kind: str, plugin: nn.Module, segments: int | None
) -> str:
    """Make the plugin a child of its host, run by a hook; return its path."""
    host = module.get_submodule(path)
    children = dict(host.named_children())
    names = (f"{kind}{number or ''}" for number in itertools.count())
    name = next(name for name in names if name not in children)
    host.add_module(name, _alike(plugin, module))
    if isinstance(host, nn.Sequential):
        return f"{path}.{name}"  # which runs what it holds
    # The hook knows a name, not the plugin, so that a deep copy runs its own.
    host.register_forward_hook(partial(_run_plugin, name=name, num_segments=segments))
    return f"{path}.{name}"


def _run_plugin(
    host: nn.Module,
    args: tuple,
    output: Tensor,
    *,
    name: str,
    num_segments: int | None = None,
) -> Tensor:
    plugin = host.get_submodule(name)
    if not isinstance(output, Tensor):
        raise ValueError(
            f"The module before {name} gives a {type(output).__name__}, and a plugin "
            "takes one tensor; name a module that gives the features alone."
        )
    if num_segments is None:
        return plugin(output)
    num_segments = own_segments(num_segments)
    if output.shape[0] % num_segments:
        raise ValueError(
            f"num_segments={num_segments} of {name} does not divide the "
            f"{output.shape[0]} frames of the batch; set it to the frames of a clip "
            "at that layer."
        )
    clips = output.unflatten(0, (-1, num_segments)).transpose(1, 2)  # (B, C, T, H, W)
    return plugin(clips).transpose(1, 2).flatten(0, 1)


def _log(module: nn.Module, inserted: list[str]) -> None:
    kinds: dict[str, list[str]] = {}
    for path in inserted:
        kinds.setdefault(type(module.get_submodule(path)).__name__, []).append(path)
    for kind, paths in kinds.items():
        print_log(
            f"{type(module).__name__}: inserted {kind} {len(paths)} times: "
            f"{', '.join(paths)}",
            logger="current",
        )
