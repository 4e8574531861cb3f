"""What each of several plugins costs in one network: counted, measured, tried."""

import gc
import math
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from tqdm import tqdm

from polynl_mm.analysis.cost.budgets import Growth, fit_growth, largest, predicted
from polynl_mm.analysis.cost.choice_setting import Setting
from polynl_mm.analysis.cost.choices import with_frames
from polynl_mm.analysis.cost.operations import count_recognizer_cost
from polynl_mm.analysis.cost.training_steps import Trainer, bytes_of_step, quietly
from polynl_mm.plugins import Plugin
from polynl_mm.recognizers.building import build_recognizer
from polynl_mm.user_errors import UserError

# Memory grows in kinks, where another moment of the step becomes the worst one: steps
# of thirteen clips held up to 2 % more than two and three had promised.
RESERVE = 0.02


@dataclass(frozen=True)
class Choice:
    """What one choice costs.

    Attributes:
        name (str): The plugin as it was asked for, or ``no plugin``.
        plugins (int): How many of them the network has.
        parameters (int): Of the recognizer.
        gflops (float): Of one view, as ``get_flops.py`` counts.
        step_bytes (int): Peak memory of a training step on one clip, measured.
        step_seconds (float): Of a training step, the median.
        step_ratio (float): To that of the first choice, the median over the rounds.
        view_seconds (float): Of the forward pass of one view, the median.
        view_ratio (float): So, too.
        largest_batch (int | None): Clips of this shape within the budget.
        longest_clip (int | None): Frames of one clip within the budget.
        verified (bool): Whether the last two were trained.
    """

    name: str
    plugins: int
    parameters: int
    gflops: float
    step_bytes: int
    step_seconds: float
    step_ratio: float
    view_seconds: float
    view_ratio: float
    largest_batch: int | None
    longest_clip: int | None
    verified: bool


def compare_choices(configs: Mapping[str, Config], setting: Setting) -> list[Choice]:
    """Count, measure and try each choice; the timed ones take turns.

    Args:
        configs (Mapping[str, Config]): The choices by name; the others are compared
            with the first.
        setting (Setting): What to measure.

    Returns:
        list[Choice]: One for each.

    Raises:
        UserError: If a clip cannot be halved, or a budget is larger than the memory.
    """
    if setting.budget and setting.verify:
        _expect_memory(setting)
    counted = {name: _count(cfg, name, setting) for name, cfg in configs.items()}
    measured, trainers = {}, {}
    device = torch.device(setting.device)
    for name, cfg in tqdm(configs.items(), desc="memory", unit="choice"):
        with quietly():
            trainers[name] = Trainer(cfg, name, device)
        measured[name] = _measure(cfg, name, setting, trainers[name])
        if setting.verify:
            del trainers[name]  # the next ones are tried with all the memory
        _collect()
    for name in [name for name in configs if name not in trainers]:
        with quietly():
            trainers[name] = Trainer(configs[name], name, device)
    steps, views = _take_turns(trainers, setting)
    first = next(iter(configs))
    return [
        Choice(
            name,
            *counted[name],
            measured[name][0],
            statistics.median(steps[name]),
            _ratio(steps[name], steps[first]),
            statistics.median(views[name]),
            _ratio(views[name], views[first]),
            *measured[name][1:],
            verified=bool(setting.budget and setting.verify),
        )
        for name in configs
    ]


def frames_unit(cfg: Config, frames: int) -> int:
    """Return the step in which the length of a clip may change.

    Args:
        cfg (Config): The config.
        frames (int): T that it takes.

    Returns:
        int: A divisor of T: an eighth where that is whole, and a multiple of what a
        slow pathway leaves out.
    """
    unit = frames // math.gcd(frames, 8)
    skipped = cfg.model.backbone.get("resample_rate") or 1
    return math.lcm(unit, skipped) if frames % skipped == 0 else frames


def _ratio(times: Sequence[float], base: Sequence[float]) -> float:
    return statistics.median(t / b for t, b in zip(times, base, strict=True))


def _collect() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _count(cfg: Config, name: str, setting: Setting) -> tuple[int, int, float]:
    with quietly(), torch.device("meta"):  # counting needs shapes, not numbers
        model = build_recognizer(cfg, name)
    inserted = cfg.model.backbone.get("plugins") or []
    types = {str(entry["cfg"]["type"]) for entry in inserted}
    plugins = sum(
        isinstance(m, Plugin) or type(m).__name__ in types for m in model.modules()
    )
    cost = count_recognizer_cost(model, setting.shape)
    return plugins, cost.parameters, cost.gflops


def _measure(
    cfg: Config, name: str, setting: Setting, trainer: Trainer
) -> tuple[int, int | None, int | None]:
    """Return the memory of a step, the largest batch and the longest clip."""
    shape = setting.shape
    if setting.budget is None:
        return trainer.peak_bytes(1, shape), None, None
    half_frames = setting.frames // 2
    half = _trainer_for(cfg, name, setting, half_frames, trainer).peak_bytes(
        2, setting.clip(half_frames)
    )
    one, two, three = (trainer.peak_bytes(size, shape) for size in (1, 2, 3))
    growth = fit_growth(setting.frames, two, three, half)
    unit = frames_unit(cfg, setting.frames)
    batch, units = predict_fits(growth, setting, unit)
    if setting.verify:
        budget = setting.budget
        batch = largest(lambda n: bytes_of_step(trainer, n, shape), budget, batch)
        units = largest(_of_clips(cfg, name, setting, unit, trainer), budget, units)
    return one, batch, units * unit


def predict_fits(growth: Growth, setting: Setting, unit: int) -> tuple[int, int]:
    """Return the largest batch and the longest clip that should fit.

    Args:
        growth (Growth): How memory grows.
        setting (Setting): With a budget.
        unit (int): Frames by which a clip may grow.

    Returns:
        tuple[int, int]: Clips of the setting's shape; units of frames of one clip.
    """
    allowed = (1 - RESERVE) * setting.budget
    batch = predicted(lambda n: growth.predict(n, setting.frames), allowed)
    units = predicted(lambda n: growth.predict(1, n * unit), allowed)
    return batch, units


def _of_clips(
    cfg: Config, name: str, setting: Setting, unit: int, trainer: Trainer
) -> Callable[[int], float]:
    def measure(units: int) -> float:
        frames = units * unit
        fitting = _trainer_for(cfg, name, setting, frames, trainer)
        return bytes_of_step(fitting, 1, setting.clip(frames))

    return measure


def _trainer_for(
    cfg: Config, name: str, setting: Setting, frames: int, trainer: Trainer
) -> Trainer:
    """Return a trainer for clips of another length: 2D recognizers know theirs."""
    if not setting.flat:
        return trainer
    changed = with_frames(cfg, setting.frames, frames)
    return Trainer(changed, name, torch.device(setting.device))


def _take_turns(
    trainers: Mapping[str, Trainer], setting: Setting
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    batches: dict[str, Any] = {}
    for name, trainer in trainers.items():
        batches[name] = trainer.batch(setting.batch, setting.shape)
    steps: dict[str, list[float]] = {name: [] for name in trainers}
    views: dict[str, list[float]] = {name: [] for name in trainers}
    for name, trainer in trainers.items():
        # Steps of this batch may be new to a library that looks for its best way.
        if setting.batch > 1 or setting.verify or setting.device == "cuda":
            trainer.seconds_of_step(batches[name])
        trainer.seconds_of_view(setting.shape)
    for _ in tqdm(range(setting.rounds), desc="time", unit="round"):
        for name, trainer in trainers.items():
            steps[name].append(trainer.seconds_of_step(batches[name]))
            views[name].append(trainer.seconds_of_view(setting.shape))
    return steps, views


def _expect_memory(setting: Setting) -> None:
    """Refuse to fill more memory than there is: a CPU's is everyone's."""
    if setting.device == "cuda":
        there = torch.cuda.get_device_properties(0).total_memory
    else:
        there = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if setting.budget > there:
        raise UserError(
            f"--verify trains steps of {setting.budget / 1e9:.1f} GB, but this machine "
            f"has {there / 1e9:.1f} GB free; lower --memory-budget, or predict without "
            "--verify."
        )
