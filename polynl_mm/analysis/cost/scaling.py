"""How much faster several processes train than one, each with the same batch.

Inputs are random and stay where they are: decoding videos, which also has to keep up,
is not part of it.
"""

import argparse
import contextlib
import logging
import socket
import statistics
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from torch import nn
from tqdm import tqdm

from polynl_mm.analysis.colours import OURS, REST
from polynl_mm.analysis.line_labels import Label, label_lines
from polynl_mm.atomic_files import (
    renamed_when_complete,
)
from polynl_mm.recognizers.command_line import check_counts
from polynl_mm.stack.literal_texts import literal_texts
from polynl_mm.stack.process_group import leave_process_group
from polynl_mm.user_errors import UserError

WARM_UP = 2


@dataclass(frozen=True)
class Setting:
    """What is measured, and how.

    Attributes:
        processes (tuple[int, ...]): The numbers of processes to compare.
        batch_size (int): Clips of each process and step.
        shape (tuple[int, ...]): One clip as the recognizer takes it.
        steps (int): Steps in a row that are timed together.
        rounds (int): How many times each number of processes has its turn.
        threads (int): Threads of each process.
        device (str): ``'cpu'`` or ``'cuda'``.
    """

    processes: tuple[int, ...]
    batch_size: int
    shape: tuple[int, ...]
    steps: int = 5
    rounds: int = 5
    threads: int = 1
    device: str = "cpu"


def measure_scaling(cfg: Config, setting: Setting) -> dict[int, list[float]]:
    """Train with each number of processes in turns.

    Args:
        cfg (Config): The config of a recognizer, with its optimizer.
        setting (Setting): What to measure.

    Returns:
        dict[int, list[float]]: Clips per second of all processes together, one number
        for each round, by the number of processes.

    Raises:
        UserError: If there are fewer GPUs than processes.
    """
    most = max(setting.processes)
    if setting.device == "cuda" and most > torch.cuda.device_count():
        raise UserError(
            f"--processes {most} needs as many GPUs; this machine has "
            f"{torch.cuda.device_count()}."
        )
    results = mp.get_context("spawn").SimpleQueue()
    # What is read from a config file cannot be pickled whole.
    plain = {"model": cfg.model.to_dict(), "optim_wrapper": cfg.optim_wrapper.to_dict()}
    plain["default_scope"] = cfg.get("default_scope", "mmaction")
    mp.spawn(
        _take_turns, args=(plain, asdict(setting), free_port(), results), nprocs=most
    )
    return results.get()


def summarize(clips_per_second: dict[int, list[float]]) -> list[dict]:
    """Compare what was measured with the fewest processes times their number.

    Args:
        clips_per_second (dict[int, list[float]]): From :func:`measure_scaling`.

    Returns:
        list[dict]: ``processes``, ``clips_per_second`` (the median of the rounds),
        ``speedup`` and ``efficiency`` (medians over the rounds of the ratio to the
        fewest processes in the same round), and ``rounds``, all measured numbers.
    """
    base = min(clips_per_second)
    rows = []
    for processes, rates in sorted(clips_per_second.items()):
        ratios = [r / b for r, b in zip(rates, clips_per_second[base], strict=True)]
        speedup = statistics.median(ratios)
        rows.append(
            {
                "processes": processes,
                "clips_per_second": statistics.median(rates),
                "speedup": speedup,
                "efficiency": speedup * base / processes,
                "rounds": rates,
            }
        )
    return rows


def format_table(rows: Sequence[dict]) -> str:
    """Return the summary as a Markdown table.

    Args:
        rows (Sequence[dict]): From :func:`summarize`.

    Returns:
        str: A table.
    """
    lines = [
        "| processes | clips per second | speed-up | efficiency |",
        "|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['processes']} | {row['clips_per_second']:.2f} | "
            f"{row['speedup']:.2f} | {row['efficiency']:.0%} |"
        )
    return "\n".join(lines)


@literal_texts()
def plot(rows: Sequence[dict], path: Path) -> None:
    """Draw the rates against the numbers of processes, with the ideal line.

    Args:
        rows (Sequence[dict]): From :func:`summarize`.
        path (Path): The PNG to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    numbers = [row["processes"] for row in rows]
    first = rows[0]["clips_per_second"] / numbers[0]
    ideal = [first * n for n in numbers]
    measured = [r["clips_per_second"] for r in rows]
    axes.plot(numbers, ideal, "--", color=REST)
    axes.plot(numbers, measured, "o-", color=OURS, linewidth=2.5)
    axes.set(
        xlabel="processes", ylabel="clips per second", xticks=numbers, ylim=(0, None)
    )
    axes.grid(alpha=0.3)
    figure.draw_without_rendering()  # the place of the axes
    ends = (("ideal", ideal, REST), ("measured", measured, OURS))
    label_lines(axes, [Label(numbers[-1], c[-1], name, hue) for name, c, hue in ends])
    with renamed_when_complete(path) as partial_path:
        figure.savefig(partial_path, dpi=120)


def _take_turns(rank: int, cfg: dict, setting: dict, port: int, results) -> None:
    """Run in each process: train when it is among the first so many."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    setting = Setting(**setting)
    torch.set_num_threads(setting.threads)
    device = torch.device(setting.device, rank if setting.device == "cuda" else None)
    if setting.device == "cuda":
        torch.cuda.set_device(device)
    most = max(setting.processes)
    dist.init_process_group(
        "nccl" if setting.device == "cuda" else "gloo",
        init_method=f"tcp://127.0.0.1:{port}",
        rank=rank,
        world_size=most,
    )
    # One trainer for each number: two reducers on the same weights would both run.
    steps = {}
    for number in setting.processes:
        group = dist.new_group(range(number))
        if rank < number:
            steps[number] = build_step(cfg, setting, device, group, number)
    rates = {number: [] for number in setting.processes}
    turns = [n for _ in range(setting.rounds) for n in setting.processes]
    for number in tqdm(turns, desc="scaling", unit="turn", disable=rank != 0):
        dist.barrier()
        if rank < number:
            seconds = _time(steps[number], setting, device)
            clips = number * setting.batch_size * setting.steps
            rates[number].append(clips / seconds)
    dist.barrier()
    if rank == 0:
        results.put(rates)
    leave_process_group()


def build_step(
    cfg: dict, setting: "Setting", device: torch.device, group, number: int
) -> partial:
    """Build a recognizer with its optimizer, to be trained on random clips.

    Args:
        cfg (dict): With ``model``, ``optim_wrapper`` and ``default_scope``.
        setting (Setting): Its batch and shape.
        device (torch.device): Where.
        group (ProcessGroup | None): Of the processes whose gradients are averaged.
        number (int): How many they are.

    Returns:
        partial: Takes one step of training; its arguments are the batch and the
        optimizer wrapper, and it is a method of the model, maybe wrapped.
    """
    init_default_scope(cfg["default_scope"])
    from mmaction.registry import MODELS
    from mmaction.structures import ActionDataSample

    torch.manual_seed(0)
    model: nn.Module = MODELS.build(Config(dict(model=cfg["model"])).model).to(device)
    optim_wrapper = build_optim_wrapper(
        model, Config(dict(optim=cfg["optim_wrapper"])).optim
    )
    if number > 1:
        model = MMDistributedDataParallel(
            model,
            device_ids=[device] if device.type == "cuda" else None,
            process_group=group,
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
        )
    model.train()
    clip = torch.randint(0, 255, setting.shape, dtype=torch.uint8, device=device)
    batch = {
        "inputs": [clip] * setting.batch_size,
        "data_samples": [
            ActionDataSample().set_gt_label(0).to(device)
            for _ in range(setting.batch_size)
        ],
    }
    return partial(model.train_step, batch, optim_wrapper)


def _time(step, setting: Setting, device) -> float:
    """Return the seconds of some steps in a row, after others to warm up."""
    for _ in range(WARM_UP):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(setting.steps):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def read_setting(cfg: Config, args: argparse.Namespace) -> Setting:
    """Complete the options from a config.

    Args:
        cfg (Config): The config.
        args (argparse.Namespace): Of ``tools/analysis_tools/measure_scaling.py``.

    Returns:
        Setting: What to measure.

    Raises:
        UserError: If a number is not positive, or there is nothing to compare.
    """
    check_counts(args, ("batch_size", "steps", "rounds", "threads"))
    gpus = torch.cuda.device_count()
    usual = {1, *(2**i for i in range(1, 7) if 2**i <= gpus), gpus or 2}
    processes = tuple(sorted(set(args.processes or usual)))
    if len(processes) < 2 or processes[0] < 1:
        raise UserError(
            "--processes takes two or more different numbers from 1 to compare, such "
            "as --processes 1 2."
        )
    flat = cfg.model.type == "Recognizer2D"
    shape = tuple(args.shape)
    if shape[1 if flat else 0] != 3 or min(shape) < 1:
        raise UserError(
            f"--shape of a {cfg.model.type} is {'T 3 H W' if flat else '3 T H W'}, not "
            f"{' '.join(map(str, shape))}."
        )
    return Setting(
        processes=processes,
        batch_size=args.batch_size or cfg.train_dataloader.batch_size,
        shape=shape if flat else (1, *shape),  # one clip of a video
        device=args.device or ("cuda" if gpus else "cpu"),
        **{
            name: getattr(args, name)
            for name in ("steps", "rounds", "threads")
            if getattr(args, name) is not None
        },
    )


def gradient_bytes(cfg: Config) -> int:
    """Return how much a training step averages over the processes.

    Args:
        cfg (Config): The config.

    Returns:
        int: Bytes of all gradients.
    """
    init_default_scope(cfg.get("default_scope", "mmaction"))
    from mmaction.registry import MODELS

    with torch.device("meta"), contextlib.redirect_stdout(None):
        model = MODELS.build(cfg.model)
    return sum(
        p.numel() * p.element_size() for p in model.parameters() if p.requires_grad
    )
