"""What a work dir keeps of a training: config, log, results, environment."""

import contextlib
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from polynl_mm.analysis.accuracy.accuracies import overall_accuracies
from polynl_mm.analysis.accuracy.dumped_results import DumpedResults, read_results
from polynl_mm.analysis.accuracy.training_curves import TrainingLog, read_training
from polynl_mm.analysis.cost.operations import count_recognizer_cost
from polynl_mm.analysis.cost.training_steps import quietly
from polynl_mm.datasets.yielded_clips import build_dataset
from polynl_mm.recognizers.building import build_recognizer
from polynl_mm.recognizers.configs import load_config
from polynl_mm.text_files import parse_json, read_text
from polynl_mm.user_errors import UserError, first_line

ENVIRONMENT = ("System environment:", "Runtime environment:")
ACCURACIES = ("top1", "top5", "mean1")
LONGEST_VALUE = 300


@dataclass
class Run:
    """A training.

    Attributes:
        title (str): What to call it.
        folder (Path): Its work dir.
        log (TrainingLog): Its curves.
        cfg (Config | None): Its config, where it is there and can be read.
        results (DumpedResults | None): Of ``tools/test.py --dump``, where there are.
        accuracies (dict[str, float]): ``top1`` and others, from 0 to 1: of the dump,
            of ``--metrics``, or else of the last validation.
        environment (dict[str, str]): From the log.
        cost (dict[str, float]): ``gflops``, ``parameters``, ``milliseconds`` of a view.
        notes (list[str]): What is missing in the report, and how to get it.
    """

    title: str
    folder: Path
    log: TrainingLog
    cfg: Config | None = None
    results: DumpedResults | None = None
    accuracies: dict[str, float] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_run(folder: str | Path, title: str | None = None) -> Run:
    """Read what a work dir keeps.

    Args:
        folder (str | Path): A work dir of ``tools/train.py``.
        title (str | None): What to call it; by default its folder's name.

    Returns:
        Run: With notes on what is not there.

    Raises:
        UserError: If it is no work dir of a training, or holds a damaged file.
    """
    folder = Path(folder)
    run = Run(
        title or folder.resolve().name,
        folder,
        read_training(folder, title or folder.name),
    )
    run.cfg = _read_config(run)
    dumps = sorted(folder.rglob("*.pkl"), key=lambda file: file.stat().st_mtime)
    if dumps:
        run.results = read_results(dumps[-1])
    else:
        run.notes.append(
            "no confusion matrix, because there are no predictions: python "
            f"tools/test.py CONFIG CHECKPOINT --dump {folder}/scores.pkl"
        )
    run.accuracies = _read_accuracies(run)
    run.environment = _read_environment(folder)
    return run


def _read_config(run: Run) -> Config | None:
    found = sorted(run.folder.glob("*/vis_data/config.py")) or sorted(
        run.folder.glob("*.py")
    )
    if not found:
        run.notes.append("no cost and no config, because the work dir has none")
        return None
    try:
        return load_config(str(found[-1].resolve()))
    except UserError as error:
        run.notes.append(f"no cost and no config: {error}")
        return None


def _read_accuracies(run: Run) -> dict[str, float]:
    if run.results is not None:
        return overall_accuracies(run.results)
    metrics = run.folder / "metrics.json"
    found: dict[str, Any] = {}
    if metrics.is_file():
        with contextlib.suppress(json.JSONDecodeError):
            read = parse_json(read_text(metrics, "metrics"), str(metrics))
            found = read if isinstance(read, dict) else {}
    else:
        for key in ACCURACIES:
            values = run.log.curve(f"acc/{key}", "iter")[1]
            found |= {f"acc/{key}": values[-1]} if values else {}
    return {
        key: float(found[f"acc/{key}"])
        for key in ACCURACIES
        if isinstance(found.get(f"acc/{key}"), int | float)
    }


def _read_environment(folder: Path) -> dict[str, str]:
    """Return what MMEngine writes at the beginning of a log."""
    logs = sorted(folder.glob("*/*.log"))
    found: dict[str, str] = {}
    inside = False
    for line in read_text(logs[-1], "log").splitlines()[:120] if logs else []:
        if line.strip() in ENVIRONMENT:
            inside = True
        elif inside and line.startswith("    ") and ": " in line:
            key, _, value = line.strip().partition(": ")
            if key != "PyTorch compiling details":
                found[key] = value[:LONGEST_VALUE]
        elif inside and line.startswith("---"):
            inside = False
    return found


def measure_costs(runs: Sequence[Run], rounds: int) -> None:
    """Count each run's operations, and time a view; the runs take turns.

    Args:
        runs (Sequence[Run]): Changed in place: ``cost``, and ``notes`` where the
            config or its data do not allow it.
        rounds (int): How many times each is timed; 0 for none.
    """
    views: dict[int, tuple[torch.nn.Module, torch.Tensor]] = {}
    for place, run in enumerate(runs):
        if run.cfg is None:
            continue
        try:
            with quietly():
                shape = _shape_of_view(run.cfg)
                model = build_recognizer(run.cfg, run.title)
        except (UserError, OSError, ValueError, KeyError) as error:
            run.notes.append(f"no cost: {first_line(error)}")
            continue
        counted = count_recognizer_cost(model, shape)
        run.cost = dict(gflops=counted.gflops, parameters=float(counted.parameters))
        flat = type(model).__name__ == "Recognizer2D"
        inputs = torch.zeros(1, *shape)
        views[place] = model, inputs if flat else inputs.unsqueeze(1)
    times: dict[int, list[float]] = {place: [] for place in views}
    with torch.no_grad():
        for turn in range(-1, rounds):  # the first warms up
            for place, (model, inputs) in views.items():
                start = time.perf_counter()
                model(inputs, mode="tensor")
                if turn >= 0:
                    times[place].append(1e3 * (time.perf_counter() - start))
    for place, taken in times.items():
        if taken:
            runs[place].cost["milliseconds"] = statistics.median(taken)


def _shape_of_view(cfg: Config) -> tuple[int, ...]:
    """Return the shape of a view as the test pipeline yields it."""
    inputs = build_dataset(cfg, "test")[0]["inputs"]  # (views, 3, T, H, W) or flat
    return tuple(inputs.shape[1:] if inputs.dim() == 5 else inputs.shape)


def config_differences(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Return what differs between the configs of runs.

    Args:
        runs (Sequence[Run]): Those without a config have empty cells.

    Returns:
        dict[str, list[str]]: By key, a value for each run.
    """
    flat = [_flatten(run.cfg.to_dict()) if run.cfg is not None else {} for run in runs]
    # Where a run was written is no choice of the experiment.
    keys = list(dict.fromkeys(k for each in flat for k in each if k != "work_dir"))
    table = {key: [each.get(key, "") for each in flat] for key in keys}
    return {key: values for key, values in table.items() if len(set(values)) > 1}


def _flatten(value: Any, prefix: str = "") -> dict[str, str]:
    if isinstance(value, dict) and value:
        found: dict[str, str] = {}
        for key, inner in value.items():
            found |= _flatten(inner, f"{prefix}.{key}" if prefix else str(key))
        return found
    shown = repr(value)
    return {prefix: shown if len(shown) <= LONGEST_VALUE else shown[:297] + "..."}
