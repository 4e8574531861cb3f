"""A trained non-local network as the starting point of a Poly-NL network.

The dot-product block is ``out M theta x_i`` with the K x K matrix ``M = mean_j g x_j
(phi x_j)^T``. Poly-NL of the same inner width is ``out diag(m) g x_i`` with the vector
``m = mean_j theta x_j * phi x_j``. So with theta taken from the block's g, phi from its
phi, g from its theta, and out from its conv_out, Poly-NL is the block with the diagonal
of M in the place of M. For the embedded Gaussian that is the first-order term of its
softmax, up to a constant and a scale. Biases have no counterpart.

Whatever maps, every block starts as the identity (alpha = 0), unless asked otherwise:
the network then computes what the source computes without its non-local blocks.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from polynl_mm.plugins import Plugin, PolyNL2d, PolyNL3d
from polynl_mm.user_errors import UserError

BLOCK = ".non_local_block."
WRAPPED = re.compile(r"(.*layer\d+\.\d+)\.block\.(.*)")
EPS = 1e-5  # of mmcv's norms


@dataclass
class Conversion:
    """What came out.

    Attributes:
        weights (dict[str, Tensor]): The new state dict.
        mapped (list[str]): The Poly-NL blocks with weights of a non-local block.
        identities (list[str]): The blocks without.
        log (list[str]): What became of every weight: a line for each block, and one for
            all that did not change.
    """

    weights: dict[str, Tensor] = field(default_factory=dict)
    mapped: list[str] = field(default_factory=list)
    identities: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)


def convert(
    source: Mapping[str, Tensor],
    model: nn.Module | None = None,
    alpha: float = 0.0,
    seed: int = 0,
) -> Conversion:
    """Turn the weights of a non-local network into those of a Poly-NL network.

    Args:
        source (Mapping[str, Tensor]): A state dict of MMAction2 with non-local blocks
            of mmcv, or ours of NonLocalBlock.
        model (nn.Module | None): The Poly-NL recognizer that is to start from it; its
            initial values are used, and changed. Default: Poly-NL in the place of every
            non-local block, with its inner width.
        alpha (float): ``alpha`` of the blocks that take weights over: 0 is the
            identity, 1 the diagonal form of the non-local block at once.
        seed (int): For the random weights of what takes none over.

    Returns:
        Conversion: The weights, complete for the model, and the log.

    Raises:
        UserError: If the source has no non-local block, its backbone is not that of
            the model, or alpha is no number of float32.
    """
    if not abs(alpha) <= torch.finfo(torch.float32).max:
        raise UserError(
            f"alpha is a number that float32 holds, such as 1, not {alpha}."
        )
    source = _unwrap(source)
    blocks = _find_blocks(source)
    if not blocks:
        hint = ""
        if any(key.startswith("s2.pathway0_") for key in source):
            hint = "; convert PySlowFast's with tools/convert/pyslowfast.py first"
        raise UserError(
            "The checkpoint has no non-local block (keys such as "
            f"backbone.layer2.1{BLOCK}g.conv.weight){hint}."
        )
    done = Conversion()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if model is None:
            plugins = {f"{host}.poly_nl": _like(blocks[host]) for host in blocks}
        else:
            plugins = _find_plugins(model)
            _reset(model, plugins)
    _take_unchanged(source, model, blocks, plugins, done)
    for path, plugin in plugins.items():
        host = path.rpartition(".")[0]
        reason = _why_not(plugin, blocks.get(host))
        if reason is None:
            done.mapped.append(path)
            without = _map(plugin, blocks[host], alpha)
            how = "theta <- g, phi <- phi, g <- theta, out <- conv_out"
            done.log.append(f"{path}: {how}, alpha = {alpha:g}; no place for {without}")
        else:
            done.identities.append(path)
            done.log.append(f"{path}: starts as the identity, because {reason}")
        for key, value in plugin.state_dict(prefix=f"{path}.").items():
            done.weights[key] = value.clone()
    hosts = {path.rpartition(".")[0] for path in plugins}
    for host in blocks:
        if host not in hosts:
            done.log.append(
                f"{host}{BLOCK[:-1]}: left out, because the model has no plugin there"
            )
    return done


def describe_plugins(conversion: Conversion, source: Mapping[str, Tensor]) -> str:
    """Return the places and width that would take every non-local block over.

    Args:
        conversion (Conversion): From :func:`convert`.
        source (Mapping[str, Tensor]): What it was given.

    Returns:
        str: ``cfg`` and ``blocks`` of a plugins entry.
    """
    blocks = _find_blocks(_unwrap(source))
    stages: dict[int, list[int]] = {}
    for host in blocks:
        if match := re.search(r"layer(\d+)\.(\d+)$", host):
            stages.setdefault(int(match[1]), []).append(int(match[2]))
    places = tuple(tuple(sorted(stages.get(i, ()))) for i in range(1, 5))
    first = next(iter(blocks.values()))
    reduction = _like(first).reduction
    return f"cfg=dict(type='PolyNL3d', reduction={reduction}), blocks={places}"


def _unwrap(source: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take out what MMAction2's TSM wraps around a block and its NonLocal3d."""
    hosts = {key.partition(BLOCK)[0] for key in source if BLOCK in key}
    unwrapped = {}
    for key, value in source.items():
        match = WRAPPED.fullmatch(key)
        if match and match[1] in hosts:
            key = f"{match[1]}.{match[2]}"
        unwrapped[key] = value
    return unwrapped


def _find_blocks(source: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Return, by the path of what they follow, the weights of the non-local blocks.

    Under ``theta.weight`` and so on, whether or not the block sub-samples.
    """
    blocks: dict[str, dict[str, Tensor]] = {}
    for key, value in source.items():
        host, found, name = key.partition(BLOCK)
        if found:
            name = re.sub(r"^(theta|phi|g)\.(?:0\.)?conv\.", r"\1.", name)
            name = re.sub(r"^conv_out\.conv\.", "out.", name)
            name = re.sub(r"^conv_out\.(bn|gn|ln)\.", "norm.", name)
            blocks.setdefault(host, {})[name] = value
    return {host: block for host, block in blocks.items() if "g.weight" in block}


def _find_plugins(model: nn.Module) -> dict[str, Plugin]:
    """Return a model's plugins by their paths."""
    found = {p: m for p, m in model.named_modules() if isinstance(m, Plugin)}
    if not any(isinstance(plugin, PolyNL2d | PolyNL3d) for plugin in found.values()):
        raise UserError(
            "The config's model has no PolyNL2d or PolyNL3d to start; give one of the "
            "polynl configs."
        )
    return found


def _like(block: Mapping[str, Tensor]) -> Plugin:
    """Return a new Poly-NL of a non-local block's channels and inner width."""
    inner, channels = block["g.weight"].shape[:2]
    kind = PolyNL3d if block["g.weight"].dim() == 5 else PolyNL2d
    return kind(channels, reduction=max(channels // max(inner, 1), 1))


def _reset(model: nn.Module, plugins: Mapping[str, Plugin]) -> None:
    for plugin in plugins.values():
        plugin.reset_parameters()
        if isinstance(plugin, PolyNL2d | PolyNL3d):  # whatever zero_init says
            nn.init.zeros_(plugin.alpha)
    head = getattr(model, "cls_head", None)
    if head is not None:
        head.init_weights()


def _take_unchanged(
    source: Mapping[str, Tensor],
    model: nn.Module | None,
    blocks: Mapping[str, Mapping],
    plugins: Mapping[str, Plugin],
    done: Conversion,
) -> None:
    rest = {
        key: value
        for key, value in source.items()
        if key.partition(BLOCK)[0] not in blocks or BLOCK not in key
    }
    if model is None:
        done.weights.update(rest)
        done.log.append(f"{len(rest)} weights of backbone and head: unchanged")
        return
    own = tuple(f"{path}." for path in plugins)
    taken, fresh, missing = 0, [], []
    for key, value in model.state_dict().items():
        if key.startswith(own):
            continue
        if key in rest and rest[key].shape == value.shape:
            done.weights[key] = rest.pop(key)
            taken += 1
        elif key.startswith("backbone.") and "num_batches_tracked" not in key:
            missing.append(key)
        else:
            done.weights[key] = value.clone()
            fresh.append(key)
    if missing:
        raise UserError(
            f"The checkpoint is of another backbone than the config: {len(missing)} "
            f"weights of the config's, such as {missing[0]}, are not in it, or have "
            "another shape."
        )
    done.log.append(f"{taken} weights of backbone and head: unchanged")
    fresh = [key for key in fresh if "num_batches_tracked" not in key]
    if fresh:
        done.log.append(f"{', '.join(fresh)}: new, none of that shape in the source")
    rest = {key: value for key, value in rest.items() if key not in fresh}
    if rest:
        shown = ", ".join(list(rest)[:4])
        done.log.append(f"{len(rest)} weights, such as {shown}: left out, no place")


def _why_not(plugin: Plugin, block: Mapping[str, Tensor] | None) -> str | None:
    """Return why a plugin cannot take a block's weights over, None if it can."""
    if not isinstance(plugin, PolyNL2d | PolyNL3d):
        return f"it is a {type(plugin).__name__}"
    if block is None:
        return "the checkpoint has no non-local block there"
    needed = ("theta.weight", "phi.weight", "g.weight", "out.weight")
    if not all(name in block for name in needed):
        return "a Gaussian block has no theta and phi to take over"
    if any(name.startswith("concat_project") for name in block):
        return "a concatenation block is no product of theta and phi"
    inner, channels = block["g.weight"].shape[:2]
    if channels != plugin.in_channels:
        return f"the block there has {channels} channels, and not {plugin.in_channels}"
    if plugin.g is None or plugin.g.weight.shape[0] != inner:
        return (
            f"the block there has {inner} inner channels; PolyNL with reduction="
            f"{max(channels // inner, 1)} would take its weights over"
        )
    if plugin.heads is not None:
        return "its heads normalise the moment, which a non-local block does not"
    return None


def _map(plugin: Plugin, block: Mapping[str, Tensor], alpha: float) -> str:
    """Give a Poly-NL the weights of a non-local block; return what has no place."""
    layers = dict(g=plugin.theta, phi=plugin.phi, theta=plugin.g, out=plugin.out)
    without = [
        name
        for name in block
        if name.endswith("bias")
        and getattr(layers.get(name[:-5]), "bias", None) is None
        and "norm" not in name
    ]
    out = block["out.weight"]
    scale = None
    if "norm.weight" in block and plugin.norm is None:
        scale = block["norm.weight"]
        if "norm.running_var" in block:
            scale = scale / (block["norm.running_var"] + EPS).sqrt()
        without.append("the norm's shift (its scale is in out)")
    elif "norm.weight" in block:
        wanted = plugin.norm.state_dict()
        given = {k: block[f"norm.{k}"] for k in wanted if f"norm.{k}" in block}
        if all(given[k].shape == wanted[k].shape for k in given):
            plugin.norm.load_state_dict(given, strict=False)
    if scale is not None:
        out = out * scale.reshape(-1, *(1,) * (out.dim() - 1))
    with torch.no_grad():
        for name, layer in layers.items():
            weight = out if name == "out" else block[f"{name}.weight"]
            layer.weight.copy_(weight.reshape(layer.weight.shape))
            if layer.bias is None:
                continue
            bias = block.get(f"{name}.bias", torch.zeros_like(layer.bias))
            if name == "out" and scale is not None:
                bias = bias * scale
            layer.bias.copy_(bias)
        plugin.alpha.fill_(alpha)
    return ", ".join(without) or "nothing"
