"""Where plugins go: from stages, blocks, pathway and position to module paths."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch.nn as nn
from mmcv.cnn import ConvModule

from polynl_mm.user_errors import did_you_mean

KEYS = ("cfg", "stages", "blocks", "position", "pathway", "at", "num_segments")
POSITIONS = ("after_block", "after_conv1", "after_conv2", "after_conv3")
PATHWAYS = {"slow": "slow_path", "fast": "fast_path"}
BLOCKS = ("all", "alternate", "last", "before_last")

Blocks = Literal["all", "alternate", "last", "before_last"] | Sequence[Sequence[int]]


def find_hosts(module: nn.Module, spec: dict[str, Any]) -> list[str]:
    """Return the paths of the modules after which an entry of ``plugins`` goes.

    Args:
        module (nn.Module): The backbone.
        spec (dict): An entry of ``plugins`` without its ``cfg`` and ``num_segments``:
            either ``at``, or any of ``stages``, ``blocks``, ``position``, ``pathway``.

    Returns:
        list[str]: At least one module path, in the order of the forward pass.

    Raises:
        ValueError: If a key is unknown or has a value that the backbone cannot meet,
            or if nothing matches.
    """
    check_choice("a key of a plugins entry", spec, KEYS)
    if "at" in spec:
        return _find_at(module, spec)
    position = spec.get("position", "after_block")
    check_choice("position", [position], POSITIONS)
    hosts = []
    for prefix, pathway in _find_pathways(module, spec):
        stages = _find_stages(pathway)
        chosen = _choose_stages(stages, spec)
        for stage, indices in _choose_blocks(stages, chosen, spec).items():
            names = [name for name, _ in stages[stage].named_children()]
            hosts += [f"{prefix}{stage}.{names[i]}" for i in indices]
    if not hosts:
        raise ValueError(
            f"The plugins entry {_show(spec)} matches no block of "
            f"{type(module).__name__}; choose at least one stage and one block."
        )
    if position == "after_block":
        return hosts
    return [_find_conv(module, host, position) for host in hosts]


def check_choice(what: str, given: Iterable[Any], allowed: Sequence[str]) -> None:
    """Refuse what is not allowed, naming the nearest choice.

    Args:
        what (str): What is chosen, for the message.
        given (Iterable): The given values.
        allowed (Sequence[str]): The allowed ones.

    Raises:
        ValueError: If a given value is not among the allowed.
    """
    for value in given:
        if value not in allowed:
            hint = did_you_mean(str(value), allowed) or "."
            choices = ", ".join(map(repr, allowed))
            raise ValueError(f"{what} is one of {choices}, not {value!r}{hint}")


def _show(spec: dict[str, Any]) -> str:
    placed = {key: value for key, value in spec.items() if key != "cfg"}
    return ", ".join(f"{key}={value!r}" for key, value in placed.items()) or "{}"


def _find_at(module: nn.Module, spec: dict[str, Any]) -> list[str]:
    excluded = [k for k in ("stages", "blocks", "pathway", "position") if k in spec]
    if excluded:
        raise ValueError(
            f"at={spec['at']!r} says where the plugin goes; remove "
            f"{', '.join(excluded)} from the same plugins entry."
        )
    paths = [spec["at"]] if isinstance(spec["at"], str) else spec["at"]
    if not isinstance(paths, Sequence) or not all(isinstance(p, str) for p in paths):
        raise ValueError(f"at is a module path or a list of them, not {paths!r}.")
    if not paths:
        raise ValueError("at=[] names no module; give at least one module path.")
    known = dict(module.named_modules())
    for path in paths:
        if path not in known or not path:
            hint = did_you_mean(path, known) or "."
            raise ValueError(
                f"at: {type(module).__name__} has no module {path!r}{hint}"
            )
    hosts = [_descend(path, known[path]) for path in paths]
    for path, host in zip(paths, hosts, strict=True):
        container = isinstance(known[host], nn.ModuleList | nn.ModuleDict)
        if container and "forward" in vars(type(known[host])):
            raise ValueError(
                f"at: {path!r} is a {type(known[host]).__name__}, which runs what it "
                "holds and would run the plugin among it; name a module before or "
                "after it."
            )
        if container:
            raise ValueError(
                f"at: {path!r} is a {type(known[host]).__name__}, which is never "
                f"called itself; name a module in it, such as '{host}.0'."
            )
        if hosts.count(host) > 1:
            raise ValueError(
                f"at: {path!r} names the block {host!r} once more; give every block "
                "once, or a second plugins entry for a second plugin."
            )
    return hosts


def _descend(path: str, host: nn.Module) -> str:
    """Go from a Sequential to its last module, whose output is the same.

    A plugin made a child of the Sequential itself would be run by it once more. But
    not to a norm, which SyncBatchNorm would replace, and the plugin with it: there the
    plugin is run as the Sequential's last module.
    """
    while isinstance(host, nn.Sequential) and len(host):
        name, last = list(host.named_children())[-1]
        if isinstance(last, nn.modules.batchnorm._BatchNorm):
            break
        path, host = f"{path}.{name}", last
    return path


def _find_pathways(
    module: nn.Module, spec: dict[str, Any]
) -> list[tuple[str, nn.Module]]:
    has_two = all(hasattr(module, name) for name in PATHWAYS.values())
    if not has_two:
        if "pathway" in spec:
            raise ValueError(
                f"pathway={spec['pathway']!r} needs a backbone of two pathways, and "
                f"{type(module).__name__} has one; remove pathway."
            )
        return [("", module)]
    pathway = spec.get("pathway", "both")
    check_choice("pathway", [pathway], (*PATHWAYS, "both"))
    chosen = PATHWAYS.values() if pathway == "both" else [PATHWAYS[pathway]]
    return [(f"{name}.", getattr(module, name)) for name in chosen]


def _find_stages(module: nn.Module) -> dict[str, nn.Module]:
    names = [f"layer{i}" for i in range(1, 10) if hasattr(module, f"layer{i}")]
    stages = {name: getattr(module, name) for name in names}
    if not stages or not all(isinstance(s, nn.Sequential) for s in stages.values()):
        within = [n for n, m in module.named_modules() if n and hasattr(m, "layer2")]
        example = f"'{within[0]}.layer2', ..." if within else "..."
        raise ValueError(
            f"{type(module).__name__} has no residual stages (layer1, layer2, ...) of "
            f"its own; give at=[{example}], a list of module paths, in place of stages "
            "and blocks."
        )
    return stages


def _choose_stages(stages: dict[str, nn.Module], spec: dict[str, Any]) -> list[str]:
    flags = spec.get("stages")
    if flags is None:
        return list(stages)
    if not isinstance(flags, Sequence) or not all(isinstance(f, bool) for f in flags):
        raise ValueError(
            f"stages is one True or False for each of the {len(stages)} stages "
            f"({', '.join(stages)}), not {flags!r}."
        )
    if len(flags) != len(stages):
        raise ValueError(
            f"stages={tuple(flags)} has {len(flags)} value{'s' * (len(flags) != 1)}, "
            f"but the backbone has {len(stages)} stages ({', '.join(stages)}); give "
            "one value for each."
        )
    return [name for name, flag in zip(stages, flags, strict=True) if flag]


def _choose_blocks(
    stages: dict[str, nn.Module], chosen: list[str], spec: dict[str, Any]
) -> dict[str, list[int]]:
    blocks: Blocks = spec.get("blocks", "all")
    if isinstance(blocks, str):
        check_choice("blocks", [blocks], BLOCKS)
        return {
            stage: _choose_by_name(blocks, stage, stages[stage]) for stage in chosen
        }
    if not isinstance(blocks, Sequence) or len(blocks) != len(stages):
        raise ValueError(
            f"blocks is one of {', '.join(map(repr, BLOCKS))}, or one tuple of block "
            f"indices for each of the {len(stages)} stages, not {blocks!r}."
        )
    result = {}
    for (stage, layer), indices in zip(stages.items(), blocks, strict=True):
        if not isinstance(indices, Sequence) or isinstance(indices, str):
            raise ValueError(
                f"blocks: {stage} has a tuple of block indices, such as (1, 3) or (), "
                f"not {indices!r}."
            )
        if not all(isinstance(index, int) for index in indices):
            raise ValueError(
                f"blocks: {stage} has a tuple of block indices, such as (1, 3) or (), "
                f"not {indices!r}."
            )
        masked = any(isinstance(index, bool) for index in indices)
        if masked or len(set(indices)) < len(indices):
            raise ValueError(
                f"blocks: {tuple(indices)} of {stage} repeats a block; give indices, "
                "such as (1, 3), not a mask such as (0, 1, 0, 1)."
            )
        for index in indices:
            if not isinstance(index, int) or not 0 <= index < len(layer):
                raise ValueError(
                    f"blocks: {stage} has {len(layer)} blocks, 0 to {len(layer) - 1}, "
                    f"and so no block {index!r}."
                )
        if indices and stage not in chosen:
            raise ValueError(
                f"blocks gives {tuple(indices)} for {stage}, which stages="
                f"{tuple(spec['stages'])} leaves out; change one of the two."
            )
        if indices:
            result[stage] = sorted(indices)
    return result


def _choose_by_name(blocks: str, stage: str, layer: nn.Module) -> list[int]:
    count = len(layer)
    if blocks == "before_last" and count < 2:
        raise ValueError(
            f"blocks='before_last': {stage} has one block only; use 'last', or leave "
            "the stage out."
        )
    return {
        "all": list(range(count)),
        "alternate": list(range(count))[::-2][::-1],
        "last": [count - 1],
        "before_last": [count - 2],
    }[blocks]


def _find_conv(module: nn.Module, host: str, position: str) -> str:
    block = module.get_submodule(host)
    name = position.removeprefix("after_")
    conv = getattr(block, name, None)
    if conv is None:
        has = [f"'after_{n}'" for n in ("conv1", "conv2", "conv3") if hasattr(block, n)]
        raise ValueError(
            f"position={position!r}: {host} is a {type(block).__name__} without "
            f"{name}; use {', '.join([*has, repr('after_block')])}."
        )
    if not isinstance(conv, ConvModule | nn.Sequential):
        raise ValueError(
            f"position={position!r}: {host}.{name} is a bare {type(conv).__name__}, "
            "whose norm comes after it; use 'after_block'."
        )
    return _descend(f"{host}.{name}", conv)
