"""What a training step costs one process, and each rank of those that share its clips.

Inputs are random and stay where they are.
"""

import logging
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.config import Config
from mmengine.model import is_model_wrapper
from tqdm import tqdm

from polynl_mm.analysis.cost import scaling
from polynl_mm.analysis.cost.memory import peak_extra_memory
from polynl_mm.clip_parallel.networks import clip_parallel_network
from polynl_mm.clip_parallel.shares import Share, sharing
from polynl_mm.clip_parallel.traffic import sent_bytes
from polynl_mm.stack.process_group import leave_process_group
from polynl_mm.user_errors import UserError

TIME = -3


@dataclass
class Cost:
    """What a step costs a process.

    Attributes:
        memory (int): The most bytes it holds: weights, gradients, optimizer, features.
        fixed (int): How many of them do not depend on the clip.
        seconds (list[float]): Of each round.
        halos (int): Bytes it sends to its neighbours in time.
        sums (int): Bytes it gives into sums: of norms, plugins and pools.
        clips (int): Bytes of features that blocks need whole.
        gradients (int): Bytes of the gradients that are averaged.
    """

    memory: int
    fixed: int
    seconds: list[float]
    halos: int = 0
    sums: int = 0
    clips: int = 0
    gradients: int = 0


def measure_clip_sharing(
    cfg: Config, setting: scaling.Setting
) -> tuple[Cost, list[Cost]]:
    """Train on whole clips, and on shared ones, in turns.

    Args:
        cfg (Config): The config of a recognizer, with its optimizer.
        setting (Setting): ``processes`` is one number: how many share a clip.

    Returns:
        tuple[Cost, list[Cost]]: Of one process, and of each rank.

    Raises:
        UserError: If the ranks cannot share the clip, or there are too few GPUs.
    """
    (ranks,) = setting.processes
    if setting.device == "cuda" and ranks > torch.cuda.device_count():
        raise UserError(
            f"--ranks {ranks} needs as many GPUs; this machine has "
            f"{torch.cuda.device_count()}."
        )
    frames = setting.shape[TIME]
    if frames % ranks:
        raise UserError(
            f"A clip of {frames} frames cannot be shared over {ranks} ranks; take a "
            f"multiple of {ranks}."
        )
    results = mp.get_context("spawn").SimpleQueue()
    plain = {"model": cfg.model.to_dict(), "optim_wrapper": cfg.optim_wrapper.to_dict()}
    plain["default_scope"] = cfg.get("default_scope", "mmaction")
    mp.spawn(
        _run, args=(plain, asdict(setting), scaling.free_port(), results), nprocs=ranks
    )
    found = results.get()
    return Cost(**found[0]), [Cost(**cost) for cost in found[1:]]


def _run(rank: int, cfg: dict, setting: dict, port: int, results) -> None:
    """Run in each process; the first one alone is also one process."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    setting = scaling.Setting(**setting)
    (ranks,) = setting.processes
    torch.set_num_threads(setting.threads)
    device = torch.device(setting.device, rank if setting.device == "cuda" else None)
    if setting.device == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl" if setting.device == "cuda" else "gloo",
        init_method=f"tcp://127.0.0.1:{port}",
        rank=rank,
        world_size=ranks,
    )
    share = Share(rank, ranks, tuple(range(ranks)), dist.new_group(range(ranks)))
    shape = list(setting.shape)
    shape[TIME] //= ranks
    part = replace(setting, shape=tuple(shape))
    shared = scaling.build_step(cfg, part, device, None, ranks)
    model = shared.func.__self__
    inner = model.module if is_model_wrapper(model) else model
    alone = None if rank else scaling.build_step(cfg, setting, device, None, 1)
    costs = []
    if alone is not None:
        costs.append(_measure(alone, device))
    dist.barrier()
    with sharing(share), clip_parallel_network(inner, ranks):
        cost = _measure(shared, device)
    turns = range(setting.rounds)
    for _ in tqdm(turns, desc="clip sharing", unit="round", disable=rank != 0):
        if alone is not None:
            costs[0].seconds.append(_time(alone, device, setting.steps))
        dist.barrier()
        with sharing(share), clip_parallel_network(inner, ranks):
            cost.seconds.append(_time(shared, device, setting.steps))
    every = [None] * ranks
    dist.all_gather_object(every, asdict(cost))
    if rank == 0:
        results.put([asdict(costs[0]), *every])
    dist.barrier()
    leave_process_group()


def _measure(step: Callable, device: torch.device) -> Cost:
    """Return memory and traffic of a step, no seconds yet."""
    step()  # after which DistributedDataParallel makes its buckets anew
    extra = peak_extra_memory(step, device)
    before = sent_bytes()
    step()
    sent = [new - old for new, old in zip(sent_bytes(), before, strict=True)]
    model, optim_wrapper = step.func.__self__, step.args[1]
    weights = [*model.parameters(), *model.buffers()]
    states = optim_wrapper.optimizer.state.values()
    held = [x for s in states for x in s.values() if isinstance(x, torch.Tensor)]
    gradients = sum(_size(p) for p in model.parameters() if p.requires_grad)
    averaged = gradients if is_model_wrapper(model) else 0
    # What DistributedDataParallel averages in is there before a step begins.
    fixed = sum(map(_size, weights)) + sum(map(_size, held)) + averaged
    return Cost(extra + fixed, fixed, [], *sent, averaged)


def _size(x: torch.Tensor) -> int:
    return x.numel() * x.element_size()


def _time(step: Callable, device: torch.device, steps: int) -> float:
    """Return the seconds of a step, the mean of some in a row."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / steps


def format_table(alone: Cost, ranks: list[Cost]) -> str:
    """Return the comparison as a Markdown table.

    Args:
        alone (Cost): Of one process.
        ranks (list[Cost]): Of each rank.

    Returns:
        str: A table.
    """
    worst = max(ranks, key=lambda cost: cost.memory)
    sent = max(cost.halos + cost.sums + cost.clips for cost in ranks)
    halos = max(cost.halos for cost in ranks)
    rounds = [
        [b / a for a, b in zip(alone.seconds, cost.seconds, strict=True)]
        for cost in ranks
    ]
    slower = max(statistics.median(ratios) for ratios in rounds)
    seconds = max(statistics.median(cost.seconds) for cost in ranks)
    lines = [
        f"| of a training step | one process | a rank of {len(ranks)} | ratio |",
        "|---|---|---|---|",
        f"| peak memory | {_mb(alone.memory)} | {_mb(worst.memory)} "
        f"| {worst.memory / alone.memory:.2f} |",
        f"| of it weights, gradients, optimizer | {_mb(alone.fixed)} "
        f"| {_mb(worst.fixed)} | |",
        f"| time | {statistics.median(alone.seconds):.2f} s | {seconds:.2f} s "
        f"| {slower:.2f} |",
        f"| sent within the clip | | {_mb(sent)} | |",
        f"| of it halos | | {_mb(halos)} ({halos / max(sent, 1):.0%}) | |",
        f"| gradients averaged, as ever | | {_mb(worst.gradients)} | |",
    ]
    return "\n".join(lines)


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size < 1e8 else f"{size / 1e6:.0f} MB"
