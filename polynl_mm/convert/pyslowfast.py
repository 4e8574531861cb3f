"""PySlowFast's ResNets (C2D, I3D, Slow, SlowFast, with or without NLN) in MMAction2.

The networks are the same; the names differ, and so do three details:

- ``conv_out`` of PySlowFast's non-local block has a bias in front of its BatchNorm, and
  mmcv's has none. A norm takes a constant away again, so the bias goes into its mean.
- SlowFast's head sees the slow pathway's channels first, MMAction2's the fast one's.
- PySlowFast pools before it projects to phi and g, mmcv after, which is not the same:
  ``NonLocalBlock3d(sub_sample=True, pool_first=True)`` is PySlowFast's block.
"""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from polynl_mm.convert.caffe2 import read_caffe2
from polynl_mm.recognizers.model_match import compare
from polynl_mm.recognizers.state_dicts import find_state_dict
from polynl_mm.stack.safe_checkpoints import CheckpointError, load_safely
from polynl_mm.text_files import read_text
from polynl_mm.user_errors import UserError, first_line

STEM = re.compile(r"s1\.(?:pathway|s)(\d)_stem\.(conv|bn)\.(\w+)")
BLOCK = re.compile(
    r"s([2-5])\.pathway(\d)_res(\d+)\.(branch1|branch2\.[abc])(_bn)?\.(\w+)"
)
NON_LOCAL = re.compile(
    r"s([2-5])\.pathway(\d)_nonlocal(\d+)\.(conv_theta|conv_phi|conv_g|conv_out|bn|norm)"
    r"\.(\w+)"
)
FUSE = re.compile(r"s([1-4])_fuse\.(conv_f2s|bn)\.(\w+)")
HEAD = re.compile(r"head\.projection\.(\w+)")
BRANCHES = {
    "branch1": "downsample",
    "branch2.a": "conv1",
    "branch2.b": "conv2",
    "branch2.c": "conv3",
}
NON_LOCAL_LAYERS = {
    "conv_theta": "theta.conv",
    "conv_phi": "phi.conv",
    "conv_g": "g.conv",
    "conv_out": "conv_out.conv",
    "bn": "conv_out.bn",
    "norm": "conv_out.bn",
}
# The number by which torch.save's old format begins, as a pickle holds it.
TORCH_MAGIC = torch.serialization.MAGIC_NUMBER.to_bytes(10, "little")
# PySlowFast's own defaults, of what the weights do not tell.
DEFAULTS: dict[str, Any] = {
    "NONLOCAL.INSTANTIATION": "dot_product",
    "NONLOCAL.POOL": [[[1, 2, 2], [1, 2, 2]]] * 4,
    "NONLOCAL.GROUP": [[1, 1]] * 4,
    "SLOWFAST.ALPHA": 8,
    "RESNET.SPATIAL_STRIDES": [[1, 1], [2, 2], [2, 2], [2, 2]],
    "RESNET.SPATIAL_DILATIONS": [[1, 1]] * 4,
    "RESNET.STRIDE_1X1": False,
    "DATA.MEAN": [0.45, 0.45, 0.45],
    "DATA.STD": [0.225, 0.225, 0.225],
    "DATA.REVERSE_INPUT_CHANNEL": False,
    "MODEL.DROPOUT_RATE": 0.5,
    "MODEL.HEAD_ACT": "softmax",
    "DETECTION.ENABLE": False,
}


@dataclass
class Source:
    """A model of PySlowFast.

    Attributes:
        weights (dict[str, Tensor]): Under PySlowFast's names.
        settings (dict): PySlowFast's config, as far as it is known.
        others (list[str]): Names in the file that are no weights of the network.
        defaulted (dict[str, Any]): Settings that were asked for and are not known, with
            PySlowFast's defaults.
    """

    weights: dict[str, Tensor]
    settings: dict[str, Any] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    # Settings that the source does not tell, and what they were taken to be.
    defaulted: dict[str, Any] = field(default_factory=dict)

    def setting(self, name: str) -> Any:
        """Return a setting such as ``NONLOCAL.POOL``, or PySlowFast's default."""
        if self.known(name) is None:
            self.defaulted[name] = DEFAULTS[name]
        return self.known(name, DEFAULTS[name])

    def known(self, name: str, default: Any = None) -> Any:
        """Return a setting, or ``default`` where the file does not tell it."""
        section, _, key = name.partition(".")
        found = self.settings.get(section)
        return found.get(key, default) if isinstance(found, dict) else default

    def shape(self, key: str) -> tuple[int, ...]:
        """Return the shape of a weight.

        Raises:
            CheckpointError: If there is no such weight.
        """
        if key not in self.weights:
            raise CheckpointError(
                f"The weights are of no ResNet of PySlowFast: {key} is missing."
            )
        return tuple(self.weights[key].shape)

    @property
    def pathways(self) -> int:
        """The pathways: 1, or 2 of SlowFast."""
        return 1 + any(".pathway1_" in key for key in self.weights)


def read_pyslowfast(file: str, config: str | None = None) -> Source:
    """Read a checkpoint of PySlowFast.

    Args:
        file (str): A torch file with ``model_state``, or a file of Caffe2; which of
            them is told by its content.
        config (str | None): The model's ``.yaml``; default the one in the checkpoint.

    Returns:
        Source: Its weights and settings.

    Raises:
        CheckpointError: If it cannot be read safely, or holds no weights.
        UserError: If the config cannot be read.
    """
    settings: dict[str, Any] = {}
    others: list[str] = []
    if _is_caffe2(file):
        weights, others = read_caffe2(os.path.expanduser(file))
    else:
        loaded = load_safely(file, "cpu")
        weights = find_state_dict(loaded, file, ("model_state", "state_dict"))
        text = loaded.get("cfg")
        if isinstance(text, str):
            settings = _parse_settings(text, f"The cfg stored in {file}")
    if config is not None:
        if not Path(config).exists():
            raise UserError(f"The PySlowFast config {config} does not exist.")
        text = read_text(config, "PySlowFast config")
        for section, values in _parse_settings(text, config).items():
            known = settings.setdefault(section, {})
            if isinstance(known, dict) and isinstance(values, dict):
                known.update(values)
            else:
                settings[section] = values
    return Source(weights, settings, others)


def _is_caffe2(file: str) -> bool:
    """Return whether a file is a plain pickle: torch's are zip archives, or begin
    with a pickled number of their own.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        return path.suffix == ".pkl"  # whose reader says what is missing
    with open(path, "rb") as opened:
        start = opened.read(64)
    return start[:1] == b"\x80" and TORCH_MAGIC not in start


def convert_weights(source: Source) -> dict[str, Tensor]:
    """Rename PySlowFast's weights to those of MMAction2's backbones and heads.

    Args:
        source (Source): The model.

    Returns:
        dict[str, Tensor]: ``backbone...`` and ``cls_head...``; non-local blocks have
        the names that mmcv's ``NonLocal3d`` and ``NonLocalBlock3d`` share.

    Raises:
        CheckpointError: If a weight is of no ResNet of PySlowFast.
    """
    roots = ["backbone."]
    if source.pathways == 2:
        roots = ["backbone.slow_path.", "backbone.fast_path."]
    converted, unknown = {}, []
    for key, value in source.weights.items():
        new = _new_name(key, roots)
        if new is None:
            unknown.append(key)
        else:
            converted[new] = value
    if unknown:
        raise CheckpointError(
            f"{len(unknown)} weights, such as {unknown[0]}, belong to no ResNet of "
            "PySlowFast (C2D, I3D, Slow, SlowFast); other networks are not converted."
        )
    _move_biases_into_norms(converted)
    if source.pathways == 2 and "cls_head.fc_cls.weight" in converted:
        slow = source.shape(_last_conv(source, 0))[0]
        weight = converted["cls_head.fc_cls.weight"]
        converted["cls_head.fc_cls.weight"] = torch.cat(
            [weight[:, slow:], weight[:, :slow]], dim=1
        )
    return converted


def fit_weights(
    weights: dict[str, Tensor], model: nn.Module, config_name: str
) -> tuple[dict[str, Tensor], list[str]]:
    """Bring converted weights to the layout of a given model.

    Args:
        weights (dict[str, Tensor]): From :func:`convert_weights`.
        model (nn.Module): The recognizer that is to load them.
        config_name (str): Its config, for the sentence.

    Returns:
        tuple[dict[str, Tensor], list[str]]: The weights, and sentences on what makes
        the model's outputs differ from PySlowFast's.

    Raises:
        CheckpointError: If they do not fit, naming keys.
    """
    wanted = model.state_dict()
    fitted, notes = {}, []
    for key, value in weights.items():
        pooled_after = re.sub(r"\.(phi|g)\.conv\.", r".\1.0.conv.", key)
        if key not in wanted and pooled_after in wanted:
            key = pooled_after
            if not notes:
                notes.append(
                    "The model's non-local blocks pool after projecting to phi and g "
                    "(sub_sample), PySlowFast's before: outputs will differ; "
                    "NonLocalBlock3d with pool_first=True is PySlowFast's block."
                )
        flat = key in wanted and value.dim() == 5 and wanted[key].dim() == 4
        if flat and value.shape[2] == 1:
            value = value.squeeze(2)
        fitted[key] = value
    match = compare(model, fitted)
    if not match.exact:
        raise CheckpointError(
            f"The weights are not those of the model of {config_name}: {match}; leave "
            "--config out and use the model that --model-config writes."
        )
    return fitted, notes


def _parse_settings(text: str, name: str) -> dict[str, Any]:
    try:
        parsed = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{name} is no YAML: {first_line(error)}") from error
    if not isinstance(parsed, dict):
        raise UserError(f"{name} is no config of PySlowFast: it has no sections.")
    return parsed


def _new_name(key: str, roots: list[str]) -> str | None:
    """Return MMAction2's name, or None where there is none."""
    if match := HEAD.fullmatch(key):
        return f"cls_head.fc_cls.{match[1]}"
    if match := FUSE.fullmatch(key):
        stage, layer, kind = match.groups()
        name = "conv1" if stage == "1" else f"layer{int(stage) - 1}"
        return f"{roots[0]}{name}_lateral.{'bn' if layer == 'bn' else 'conv'}.{kind}"
    if match := STEM.fullmatch(key):
        pathway, layer, kind = match.groups()
        place = f"conv1.{layer}"
    elif match := BLOCK.fullmatch(key):
        stage, pathway, block, branch, norm, kind = match.groups()
        layer = f"{BRANCHES[branch]}.{'bn' if norm else 'conv'}"
        place = f"layer{int(stage) - 1}.{block}.{layer}"
    elif match := NON_LOCAL.fullmatch(key):
        stage, pathway, block, layer, kind = match.groups()
        layer = NON_LOCAL_LAYERS[layer]
        place = f"layer{int(stage) - 1}.{block}.non_local_block.{layer}"
    else:
        return None
    if int(pathway) >= len(roots):
        return None
    return f"{roots[int(pathway)]}{place}.{kind}"


def _move_biases_into_norms(weights: dict[str, Tensor]) -> None:
    """Drop the biases of ``conv_out`` where a norm follows; the outputs stay."""
    for key in [key for key in weights if key.endswith("conv_out.bn.running_mean")]:
        bias = weights.pop(key.replace("bn.running_mean", "conv.bias"), None)
        if bias is not None:
            weights[key] = weights[key] - bias


def _last_conv(source: Source, pathway: int) -> str:
    start = f"s5.pathway{pathway}_res0.branch2."
    return f"{start}c.weight" if f"{start}c.weight" in source.weights else f"{start}b"
