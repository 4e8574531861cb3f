"""Numbers and shapes of a config that cannot work, met before anything is built.

What torch and MMEngine make of them is a traceback, minutes later or after an epoch,
or a run that ends well and has trained nothing.
"""

import logging
import math
import numbers
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.optim.scheduler.param_scheduler import INF
from torch import nn

from polynl_mm.user_errors import UserError, did_you_mean

SPLITS = ("train", "val", "test")
DICTS = (
    "model",
    "data_preprocessor",
    "train_dataloader",
    "optim_wrapper",
    "train_cfg",
    "val_cfg",
    "test_cfg",
    "default_hooks",
    "env_cfg",
    "randomness",
    "auto_scale_lr",
    "log_processor",
    "visualizer",
)
LOG_LEVELS = {logging.getLevelName(level): level for level in range(10, 60, 10)}
# Of MMEngine's Runner: settings that name layers of the network.
LAYER_NAMES = ("activation_checkpointing", "efficient_conv_bn_eval")
LISTS_OF_DICTS = ("custom_hooks",)


@dataclass(frozen=True)
class Allowed:
    """What a key may hold.

    Attributes:
        text (str): In words, for the sentence.
        test (Callable): Whether a value is allowed.
    """

    text: str
    test: Callable[[Any], bool]


def _whole(low: int, also: tuple = (), high: float = math.inf) -> Allowed:
    def test(value: Any) -> bool:
        if isinstance(value, bool):
            return False
        whole = isinstance(value, numbers.Integral) and low <= value <= high
        return whole or value in also

    upper = "" if high == math.inf else f" to {high:g}"
    rest = "".join(f", or {other}" for other in also)
    return Allowed(f"a whole number from {low}{upper}{rest}", test)


def _one_of(*values: Any) -> Allowed:
    def test(value: Any) -> bool:
        return any(value is v or (type(value) is str and value == v) for v in values)

    return Allowed("one of " + ", ".join(map(repr, values)), test)


def _above_zero() -> Allowed:
    number = _number(0)
    return Allowed("a number above 0", lambda x: number.test(x) and x > 0)


def _number(low: float, high: float = math.inf) -> Allowed:
    def test(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            return False
        return low <= value <= high and math.isfinite(value)

    upper = "" if high == math.inf else f" to {high:g}"
    return Allowed(f"a number from {low:g}{upper}", test)


# Key: what it may hold; a star is any element of a list.
VALUES: dict[str, Allowed] = {
    "train_cfg.max_epochs": _whole(1),
    "train_cfg.max_iters": _whole(1),
    "train_cfg.val_interval": _whole(1),
    "train_cfg.val_begin": _whole(0),
    "optim_wrapper.accumulative_counts": _whole(1),
    "optim_wrapper.optimizer.lr": _number(0),
    "optim_wrapper.optimizer.betas.*": _number(0, 1),
    "optim_wrapper.optimizer.momentum": _number(0),
    "optim_wrapper.optimizer.weight_decay": _number(0),
    "optim_wrapper.clip_grad.max_norm": _above_zero(),
    "auto_scale_lr.base_batch_size": _whole(1),
    "randomness.seed": _whole(0, (None,), 2**32 - 1),
    "log_level": _one_of(*LOG_LEVELS, *LOG_LEVELS.values()),
    "env_cfg.mp_cfg.mp_start_method": _one_of("fork", "spawn", "forkserver"),
    "model.cls_head.average_clips": _one_of("prob", "score", None),
    "model.data_preprocessor.std.*": _above_zero(),
    "model.backbone.norm_eval": _one_of(True, False),
    "model.backbone.plugins.*.cfg.zero_init": _one_of(True, False),
    "default_hooks.logger.interval": _whole(1),
    "default_hooks.checkpoint.interval": _whole(1, (-1,)),
    "default_hooks.checkpoint.max_keep_ckpts": _whole(1, (-1,)),
    "model.cls_head.num_classes": _whole(1),
    "model.cls_head.in_channels": _whole(1),
    "model.cls_head.dropout_ratio": _number(0, 1),
    "compile": Allowed(
        "True, False or a dict such as dict(mode='default')",
        lambda value: value is None or isinstance(value, (bool, dict)),
    ),
    "param_scheduler.*.gamma": _number(0),
    "param_scheduler.*.begin": _whole(0),
    "param_scheduler.*.T_max": _whole(1, (None,)),
    "param_scheduler.*.milestones.*": _whole(0),
}
for split in SPLITS:
    VALUES |= {
        f"{split}_dataloader.batch_size": _whole(1),
        f"{split}_dataloader.num_workers": _whole(0),
        f"{split}_dataloader.prefetch_factor": _whole(1, (None,)),
        f"{split}_dataloader.dataset.pipeline.*.clip_len": _whole(1),
        f"{split}_dataloader.dataset.pipeline.*.frame_interval": _whole(1),
        f"{split}_dataloader.dataset.pipeline.*.num_clips": _whole(1),
    }


def check_values(cfg: Config) -> None:
    """Refuse a config with values that cannot work; in place.

    ``persistent_workers`` of a data loader without workers, which means nothing, is
    turned off, and the log says so.

    Args:
        cfg (Config): The config of a run.

    Raises:
        UserError: Naming the key, its value, and what is allowed.
    """
    _check_shapes(cfg)
    plain = cfg.to_dict()
    for key, allowed in VALUES.items():
        for where, value in _values_at(plain, key.split(".")):
            if not allowed.test(value):
                raise UserError(f"{where} is {allowed.text}, not {value!r}.")
    for split in SPLITS:
        loader = cfg.get(f"{split}_dataloader")
        if isinstance(loader, dict):
            _check_workers(loader, f"{split}_dataloader")
    if cfg.get("val_cfg") and cfg.get("train_cfg"):
        _check_save_best(cfg)
    _check_slow_pathway(plain)
    _check_endless_epochs(plain)
    _check_sharded_averages(plain)
    _check_flexible_runner(plain)


def check_layer_names(cfg: Config, model: nn.Module) -> None:
    """Refuse settings of layers that a network does not have.

    Args:
        cfg (Config): The config of a run.
        model (nn.Module): What it builds, as MMEngine wraps it or not.

    Raises:
        UserError: Naming the setting and a layer of the nearest name.
    """
    if is_model_wrapper(model):
        model = model.module
    layers = dict(model.named_modules())
    for key in LAYER_NAMES:
        names = cfg.get(key) or []
        for name in [names] if isinstance(names, str) else names:
            if name not in layers:
                ends = str(name).rpartition(".")[2]
                alike = [layer for layer in layers if layer.endswith(f".{ends}")]
                hint = did_you_mean(str(name), alike or layers) or "."
                raise UserError(f"{key}: the network has no layer {name!r}{hint}")


def compare_schedules(cfg: Config) -> None:
    """Warn where a training ends before the schedule of its learning rate does.

    Args:
        cfg (Config): The config of a training run, of allowed values.
    """
    plain = cfg.to_dict()
    epochs = (plain.get("train_cfg") or {}).get("max_epochs")
    schedulers = plain.get("param_scheduler") or []
    if epochs is None:
        return
    schedulers = [schedulers] if isinstance(schedulers, dict) else schedulers
    for index, scheduler in enumerate(schedulers):
        if not isinstance(scheduler, dict) or not scheduler.get("by_epoch", True):
            continue
        begin = scheduler.get("begin", 0)
        last = {"milestones": max(scheduler.get("milestones") or [0])}
        if scheduler.get("T_max"):
            last["T_max"] = begin + scheduler["T_max"]
        if isinstance(scheduler.get("end"), int) and scheduler["end"] < INF:
            last["end"] = scheduler["end"]
        key = max(last, key=last.get)
        if last[key] > epochs:
            print_log(
                f"The training ends after {epochs} epochs, but param_scheduler.{index} "
                f"({scheduler.get('type')}) changes the learning rate until epoch "
                f"{last[key]}: it is cut off. For a schedule of {epochs} epochs set "
                f"its {key}, too, and where the others begin and end.",
                logger="current",
                level=logging.WARNING,
            )


def _check_shapes(cfg: Config) -> None:
    for key in DICTS:
        value = cfg.get(key)
        if value is not None and not isinstance(value, dict) and not callable(value):
            raise UserError(
                f"{key} is a dict such as {key}=dict(...), not a "
                f"{type(value).__name__} ({_short(value)})."
            )
    for key in LISTS_OF_DICTS:
        value = cfg.get(key)
        if value is None:
            continue
        if not isinstance(value, (list, tuple)):
            raise UserError(
                f"{key} is a list of dicts such as {key}=[dict(type=...)], not a "
                f"{type(value).__name__} ({_short(value)})."
            )
        for index, part in enumerate(value):
            if not isinstance(part, dict):
                raise UserError(
                    f"{key}.{index} is a dict such as dict(type=...), not a "
                    f"{type(part).__name__} ({_short(part)}); a list of dicts is "
                    "written in a config file, --cfg-options takes none."
                )
            if "type" not in part:
                raise UserError(f"{key}.{index} has no type ({_short(part)}).")


def _values_at(tree: Any, steps: list[str], place: str = "") -> Iterator[tuple]:
    """Yield the places of a config that a key of :data:`VALUES` means, with values."""
    if not steps:
        yield place, tree
        return
    first, *rest = steps
    if first == "*":
        # A single scheduler needs no list.
        parts = enumerate(tree) if isinstance(tree, (list, tuple)) else [("", tree)]
        for index, part in parts:
            inner = f"{place}.{index}" if index != "" else place
            yield from _values_at(part, rest, inner)
    elif isinstance(tree, dict) and first in tree:
        inner = f"{place}.{first}" if place else first
        yield from _values_at(tree[first], rest, inner)


def _check_workers(loader: dict, name: str) -> None:
    if loader.get("num_workers", 0) > 0:
        return
    if loader.get("persistent_workers"):
        loader["persistent_workers"] = False
        print_log(
            f"{name}.persistent_workers is turned off: there are no workers "
            "(num_workers=0).",
            logger="current",
        )
    if loader.get("prefetch_factor") is not None:
        raise UserError(
            f"{name}.prefetch_factor={loader['prefetch_factor']} needs workers; set "
            f"{name}.num_workers to 1 or more, or prefetch_factor=None."
        )


def _check_endless_epochs(plain: dict) -> None:
    """Meet a sampler without an end in a loop that counts epochs."""
    loop = plain.get("train_cfg") or {}
    by_epoch = loop.get("type") == "EpochBasedTrainLoop" or (
        "type" not in loop and loop.get("by_epoch")
    )
    sampler = (plain.get("train_dataloader") or {}).get("sampler") or {}
    if by_epoch and str(sampler.get("type")).rpartition(".")[2] == "InfiniteSampler":
        raise UserError(
            "train_dataloader.sampler.type='InfiniteSampler' has no end, so that an "
            "epoch would have none; take DefaultSampler, or train_cfg="
            "dict(type='IterBasedTrainLoop', max_iters=...)."
        )


def _check_sharded_averages(plain: dict) -> None:
    """Meet averaged weights of a network that FSDP has cut up."""
    kind = (plain.get("strategy") or {}).get("type")
    hooks = plain.get("custom_hooks") or []
    if str(kind).endswith("FSDPStrategy") and any(
        str(hook["type"]).rpartition(".")[2] == "EMAHook" for hook in hooks
    ):
        raise UserError(
            "custom_hooks: EMAHook averages a copy of the network, and FSDP leaves no "
            "process a whole one; remove EMAHook, or strategy and runner_type."
        )


def _check_flexible_runner(plain: dict) -> None:
    """Meet settings of which MMEngine's other runner takes no notice."""
    if str(plain.get("runner_type")).rpartition(".")[2] != "FlexibleRunner":
        return
    unread = dict.fromkeys(LAYER_NAMES, "FlexibleRunner")
    kind = (plain.get("strategy") or {}).get("type")
    if str(kind).endswith("FSDPStrategy"):
        unread["compile"] = "FSDPStrategy"
    for key, reader in unread.items():
        if plain.get(key):
            hint = ""
            if key == "activation_checkpointing":
                hint = ", and take with_cp=True of the backbone"
            raise UserError(f"{reader} takes no notice of {key}: remove it{hint}.")


def _check_slow_pathway(plain: dict) -> None:
    """Meet clips of which SlowFast's slow pathway would get no frame."""
    backbone = (plain.get("model") or {}).get("backbone") or {}
    kind = backbone.get("of", backbone.get("type"))
    if str(kind).rpartition(".")[2] != "ResNet3dSlowFast":
        return
    rate = backbone.get("resample_rate", 8)
    key = "*_dataloader.dataset.pipeline.*.clip_len"
    for split in SPLITS:
        for where, length in _values_at(plain, key.replace("*", split, 1).split(".")):
            if isinstance(rate, numbers.Integral) and length < rate:
                raise UserError(
                    f"{where}={length} is shorter than model.backbone.resample_rate="
                    f"{rate}: SlowFast's slow pathway takes every {rate}th frame, and "
                    "would get none."
                )


def _check_save_best(cfg: Config) -> None:
    """Meet a metric that is never measured before the first epoch is spent."""
    hook = (cfg.get("default_hooks") or {}).get("checkpoint")
    wanted = hook.get("save_best") if isinstance(hook, dict) else None
    evaluators = cfg.get("val_evaluator") or []
    if isinstance(evaluators, dict):
        evaluators = [evaluators]
    if not wanted or any(e.get("type") != "AccMetric" for e in evaluators):
        return  # only AccMetric says beforehand what it measures
    known = set()
    for evaluator in evaluators:
        prefix = evaluator.get("prefix") or "acc"
        metrics = evaluator.get(
            "metric_list", ("top_k_accuracy", "mean_class_accuracy")
        )
        for metric in [metrics] if isinstance(metrics, str) else metrics:
            options = (evaluator.get("metric_options") or {}).get(metric) or {}
            names = {
                "top_k_accuracy": [
                    f"top{k}" for k in _listed(options.get("topk", (1, 5)))
                ],
                "mean_class_accuracy": ["mean1"],
            }.get(metric, [metric])
            known |= {f"{prefix}/{name}" for name in names}
    for name in _listed(wanted):
        if name != "auto" and name not in known:
            hint = (
                did_you_mean(name, known) or f"; it measures {', '.join(sorted(known))}"
            )
            raise UserError(
                f"default_hooks.checkpoint.save_best={name!r} is no metric of "
                f"val_evaluator{hint}"
            )


def _listed(value: Any) -> list:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
