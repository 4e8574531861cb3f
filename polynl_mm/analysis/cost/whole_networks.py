"""What plugins cost a whole network: times, memory and speed beside counted operations.

A network is measured with no plugin, with PolyNL of several widths and with mmcv's
block in the same places. They take turns, so that a machine that is slower for a while
is so for all of them, and what is compared are ratios within a turn.
"""

import itertools
import logging
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from mmcv.cnn.bricks.non_local import NonLocal3d
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS
from torch import nn
from tqdm import tqdm

from polynl_mm.analysis.cost.memory import peak_extra_memory
from polynl_mm.analysis.cost.network_setting import MMCV, NO_PLUGIN, Setting
from polynl_mm.analysis.cost.operations import count_cost, count_recognizer_cost
from polynl_mm.datasets.bookends import generate_bookends
from polynl_mm.datasets.bookends_clips import BookendsParameters
from polynl_mm.datasets.preparation.video_files import find_videos
from polynl_mm.recognizers.building import build_recognizer
from polynl_mm.user_errors import UserError, first_line

# As MMAction2's own non-local configs have it.
_MMCV_BLOCK = dict(sub_sample=True, use_scale=False, mode="embedded_gaussian")


def variants_of(cfg: Config, reductions: Sequence[int]) -> dict[str, Config]:
    """Return a config with no plugin, and with others in the places of its plugins.

    Args:
        cfg (Config): A config whose backbone is ``WithPlugins``.
        reductions (Sequence[int]): Of PolyNL.

    Returns:
        dict[str, Config]: By name, the network without plugins first.

    Raises:
        UserError: If the config has no plugins.
    """
    if not cfg.model.get("backbone", {}).get("plugins"):
        raise UserError(
            f"{cfg.filename} has no model.backbone.plugins, whose places are measured; "
            "take a config of WithPlugins."
        )
    found = {NO_PLUGIN: _with_plugins(cfg, None)}
    for reduction in reductions:
        name = f"PolyNL, reduction {reduction}"
        found[name] = _with_plugins(
            cfg, lambda dims, r=reduction: dict(type=f"PolyNL{dims}", reduction=r)
        )
    if "NonLocal3d" not in MODELS:  # mmcv registers that of 2d only
        MODELS.register_module(module=NonLocal3d)
    found[MMCV] = _with_plugins(
        cfg,
        lambda dims: dict(
            type=f"NonLocal{dims}", norm_cfg=dict(type=f"BN{dims}"), **_MMCV_BLOCK
        ),
    )
    return found


def _with_plugins(cfg: Config, block: Callable[[str], dict] | None) -> Config:
    changed = Config(cfg.to_dict())
    backbone = changed.model.backbone
    if block is None:
        backbone.plugins = []
    for entry in backbone.plugins:
        entry.cfg = block(entry.cfg.type[-2:])
    return changed


def view_of(cfg: Config) -> tuple[int, int, int, int]:
    """Return the shape of a clip that a config trains on.

    Args:
        cfg (Config): With a train pipeline.

    Returns:
        tuple[int, int, int, int]: (3, T, H, W) for a 3D recognizer, (T, 3, H, W) for a
        2D one.

    Raises:
        UserError: If the pipeline does not say it.
    """
    try:
        steps = cfg.train_dataloader.dataset.pipeline
        frames = next(step for step in steps if step.type == "SampleFrames")
        scales = [step.scale for step in steps if step.type == "Resize"]
        width, height = scales[-1]
    except (AttributeError, IndexError, StopIteration, TypeError) as error:
        raise UserError(
            f"{cfg.filename} does not say in its train pipeline how large a clip is; "
            "give --shape."
        ) from error
    if cfg.model.type == "Recognizer2D":
        return frames.clip_len * frames.get("num_clips", 1), 3, height, width
    return 3, frames.clip_len, height, width


def measure_network(cfg: Config, name: str, setting: Setting) -> dict:
    """Measure the variants of one config.

    Args:
        cfg (Config): Of :func:`variants_of`.
        name (str): What to call it.
        setting (Setting): What to measure, and how.

    Returns:
        dict: ``config``, ``shape`` and ``variants``, one dict of numbers for each.
        ``latency``, ``training`` and so on are ratios to no plugin, medians over the
        turns; ``..._to_mmcv`` those to mmcv's block, ``..._over_operations`` those of
        ratios of times to ratios of counted operations.
    """
    shape = tuple(setting.shape or view_of(cfg))
    rows: dict[str, dict] = {}
    models: dict[str, nn.Module] = {}
    for variant, changed in variants_of(cfg, setting.reductions).items():
        torch.manual_seed(0)
        with _without_logs():
            models[variant] = build_recognizer(changed, name)
        cost = count_recognizer_cost(models[variant], shape)
        rows[variant] = {"gflops": cost.gflops, "parameters": cost.parameters}
    _compare(rows, "gflops", "operations")
    if "latency" in setting.measures:
        calls = {v: _inference(model, shape) for v, model in models.items()}
        _fill_times(rows, _take_turns(calls, setting.rounds, f"{name}: latency"))
    if {"training", "memory", "decoding"} & set(setting.measures):
        _measure_training(cfg, name, setting, shape, models, rows)
    return {
        "config": name,
        "shape": list(shape),
        "variants": [{"variant": variant, **row} for variant, row in rows.items()],
    }


def _measure_training(cfg, name, setting, shape, models, rows) -> None:
    steps = {variant: _TrainingStep(model) for variant, model in models.items()}
    batch = _random_batch(shape, setting.batch, flat=cfg.model.type == "Recognizer2D")
    calls = {variant: partial(step, batch) for variant, step in steps.items()}
    for variant, call in calls.items():  # the first step also warms up
        cost = count_cost(models[variant], torch.enable_grad()(call))
        rows[variant]["training_gflops"] = cost.gflops
    _compare(rows, "training_gflops", "training_operations")
    if "memory" in setting.measures:
        for variant, call in tqdm(calls.items(), desc=f"{name}: memory"):
            peak = peak_extra_memory(call, torch.device("cpu"))
            rows[variant]["peak_mib"] = peak / 2**20
        _compare(rows, "peak_mib", "memory")
    if "training" in setting.measures:
        times = _take_turns(calls, setting.rounds, f"{name}: training")
        _fill_times(rows, times, "training", "training_operations")
    if "decoding" in setting.measures:
        with _decoded_batches(cfg, setting) as batches:
            calls = {
                variant: partial(_decode_and_step, batches(), step)
                for variant, step in steps.items()
            }
            times = _take_turns(calls, setting.rounds, f"{name}: decoding")
        for variant, seconds in times.items():
            rate = setting.batch / statistics.median(seconds)
            rows[variant]["clips_per_second"] = rate
        _compare(rows, "clips_per_second", "speed")


def _decode_and_step(batches: Iterator[dict], step: "_TrainingStep") -> None:
    step(next(batches))


def _read(dataset, number: int, names: Sequence[str]) -> dict:
    try:
        return dataset[number]
    except Exception as error:  # whatever a decoder raises
        raise UserError(
            f"--videos: {names[number]} cannot be decoded ({first_line(error)}); take "
            "it away, or find all such videos with tools/data/check_videos.py."
        ) from error


class _TrainingStep:
    """Takes a step of SGD: preprocessing, forward, loss, backward, update."""

    def __init__(self, model: nn.Module):
        self.model = model.train()
        self.optimizer = OptimWrapper(
            torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9)
        )

    def __call__(self, batch: dict) -> None:
        self.model.train_step(batch, self.optimizer)


def _inference(model: nn.Module, shape: Sequence[int]) -> Callable[[], None]:
    flat = type(model).__name__ == "Recognizer2D"
    inputs = torch.rand(1, *shape)
    inputs = inputs if flat else inputs.unsqueeze(1)  # (batch, views, ...)

    def call() -> None:
        model.eval()
        with torch.no_grad():
            model(inputs, mode="tensor")

    return call


def _random_batch(shape: Sequence[int], size: int, flat: bool) -> dict:
    from mmaction.structures import ActionDataSample

    clip = torch.randint(0, 255, shape if flat else (1, *shape), dtype=torch.uint8)
    samples = [ActionDataSample().set_gt_label(0) for _ in range(size)]
    return {"inputs": [clip] * size, "data_samples": samples}


@contextmanager
def _decoded_batches(
    cfg: Config, setting: Setting
) -> Iterator[Callable[[], Iterator[dict]]]:
    """Give what reads videos through a config's train pipeline, over and over."""
    from mmaction.registry import DATASETS

    source = cfg.train_dataloader.dataset
    if source.type != "VideoDataset":
        raise UserError(
            f"{cfg.filename} trains on a {source.type}, but decoding is measured on a "
            "VideoDataset; leave decoding out of --measure."
        )
    with tempfile.TemporaryDirectory(prefix="polynl_mm_videos_") as folder:
        if setting.videos is None:
            parameters = BookendsParameters(train=8, val=2)
            root = generate_bookends(folder, parameters) / "train"
        else:
            root = Path(setting.videos)
        names = find_videos(root).paths
        if not names:
            raise UserError(f"--videos {root}: there is no video in this folder.")
        listed = Path(folder) / "list.txt"
        lines = [f"{(root / name).resolve()}\t0" for name in names]
        listed.write_text("\n".join(lines), encoding="utf-8")
        reading = {
            **source.to_dict(),
            "ann_file": str(listed),
            "data_prefix": dict(video=""),
            "delimiter": "\t",
        }
        dataset = DATASETS.build(reading)

        def batches() -> Iterator[dict]:
            numbers = itertools.cycle(range(len(dataset)))
            samples = (_read(dataset, number, names) for number in numbers)
            while True:
                yield pseudo_collate(list(itertools.islice(samples, setting.batch)))

        yield batches


def _take_turns(
    calls: Mapping[str, Callable[[], None]], rounds: int, what: str
) -> dict[str, list[float]]:
    """Time calls in turns, after one of each to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in tqdm(range(rounds + 1), desc=what, unit="turn"):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def _fill_times(
    rows: dict[str, dict],
    seconds: Mapping[str, Sequence[float]],
    what: str = "latency",
    operations: str = "operations",
) -> None:
    for variant, row in rows.items():
        mine = seconds[variant]
        row[f"{what}_ms"] = statistics.median(mine) * 1e3
        for name, other in ((what, NO_PLUGIN), (f"{what}_to_mmcv", MMCV)):
            pairs = zip(mine, seconds[other], strict=True)
            row[name] = statistics.median(one / two for one, two in pairs)
        row[f"{what}_over_operations"] = row[what] / row[operations]


def _compare(rows: dict[str, dict], key: str, name: str) -> None:
    for row in rows.values():
        row[name] = row[key] / rows[NO_PLUGIN][key]
        row[f"{name}_to_mmcv"] = row[key] / rows[MMCV][key]


@contextmanager
def _without_logs() -> Iterator[None]:
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)


def describe_machine(setting: Setting) -> dict:
    """Return what the numbers were measured with.

    Args:
        setting (Setting): What was measured.

    Returns:
        dict: Versions, threads and the setting.
    """
    return {
        "torch": torch.__version__,
        "processor": platform.machine(),
        "threads": torch.get_num_threads(),
        "setting": {**asdict(setting), "videos": setting.videos is not None},
    }
