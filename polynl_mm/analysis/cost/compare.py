"""How many times faster a schedule is than what it replaces, in one run."""

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from mmcv.cnn.bricks.non_local import NonLocal3d
from torch import nn
from tqdm import tqdm

import polynl_mm
from polynl_mm.analysis.cost.memory import peak_extra_memory
from polynl_mm.analysis.cost.peers import PlainPolyNL3d
from polynl_mm.ops import pairwise, reference, spectral

Call = Callable[[], Any]
CPU = torch.device("cpu")
MIB = 2**20


def compare(slow: Call, fast: Call, repeats: int = 7) -> tuple[float, float, float]:
    """Time two calls in turns.

    Args:
        slow (Callable): What is replaced.
        fast (Callable): What replaces it.
        repeats (int): How often each is timed, after one call to warm up.

    Returns:
        tuple[float, float, float]: Median seconds of each, and the median, over the
        turns, of slow over fast.
    """
    slow(), fast()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for call, taken in zip((slow, fast), times, strict=True):
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
    ratios = [s / f for s, f in zip(*times, strict=True)]
    return *map(statistics.median, times), statistics.median(ratios)


def operations(positions: int = 6272, width: int = 256) -> Iterator[tuple]:
    """Yield each operation's reference and its fast form on the same tensors.

    Args:
        positions (int): N.
        width (int): C', the width of the projections.

    Yields:
        tuple: Name, reference call, fast call.
    """
    theta, phi, g = torch.randn(3, 1, width, positions)
    weight = torch.randn(2 * width) / width**0.5
    pairs = {
        "dot product": ("dot_product", (theta, phi, g)),
        "concatenation": ("concatenation", (theta, phi, g, weight)),
    }
    for name, (function, arguments) in pairs.items():
        slow, fast = getattr(reference, function), getattr(pairwise, function)
        yield (
            f"{name}, N={positions}, C'={width}",
            partial(slow, *arguments),
            partial(fast, *arguments),
        )
    for order in (1, 2, 4):
        weights = torch.randn(order + 1, 2 * width, width) / width**0.5
        yield (
            f"spectral, order {order}, N={positions}, C'={width}",
            partial(reference.spectral, theta, phi, g, weights),
            partial(spectral.spectral, theta, phi, g, weights),
        )


def modules() -> Iterator[tuple]:
    """Yield whole blocks, forward: mmcv's module and ours, on the same weights.

    Yields:
        tuple: Name, mmcv's call, our call.
    """
    for mode, shape in (
        ("dot_product", (1, 512, 8, 28, 28)),
        ("dot_product", (1, 512, 32, 28, 28)),
        ("embedded_gaussian", (1, 512, 8, 28, 28)),
        ("gaussian", (1, 512, 8, 28, 28)),
        ("concatenation", (1, 512, 1, 28, 28)),
    ):
        theirs = NonLocal3d(512, mode=mode)
        ours = polynl_mm.NonLocalBlock3d(512, mode=mode)
        ours.load_state_dict(theirs.state_dict())
        x = torch.randn(shape)
        yield f"NonLocalBlock3d {mode}, {shape}", _on(theirs, x), _on(ours, x)
    for clip_len in (8, 32):
        x = torch.randn(1, 512, clip_len, 28, 28)
        ours = polynl_mm.PolyNL3d(512)
        shape = tuple(x.shape)
        theirs = NonLocal3d(512, sub_sample=True)
        floor = nn.Conv3d(512, 512, 1)
        for name, peer in (("NonLocal3d, sub_sample", theirs), ("conv 1x1x1", floor)):
            yield f"PolyNL3d for {name}, {shape}", _on(peer, x), _on(ours, x)


def training_steps() -> Iterator[tuple]:
    """Yield a training step of Poly-NL as three convolutions, and of ``PolyNL3d``.

    Yields:
        tuple: Name, call of the one, call of the other.
    """
    for clip_len in (8, 32):
        x = torch.randn(1, 512, clip_len, 28, 28, requires_grad=True)
        steps = (_step(PlainPolyNL3d(512), x), _step(polynl_mm.PolyNL3d(512), x))
        yield (f"PolyNL3d, {tuple(x.shape)}", *steps)


def quadratic_modes() -> Iterator[tuple]:
    """Yield training steps of blocks defined by an N x N affinity, by clip length.

    Yields:
        tuple: Name, and for two clip lengths, the second twice the first, N and the
        call.
    """
    for mode in ("concatenation", "embedded_gaussian"):
        block = polynl_mm.NonLocalBlock3d(256, mode=mode)
        clips = [torch.randn(1, 256, t, 28, 28, requires_grad=True) for t in (16, 32)]
        yield mode, *((x[0, 0].numel(), _step(block, x)) for x in clips)


def _on(module: nn.Module, x: torch.Tensor) -> Call:
    return partial(module.eval(), x)


def _step(module: nn.Module, x: torch.Tensor) -> Call:
    cotangent = torch.randn_like(x)

    def step() -> None:
        x.grad = None
        module.zero_grad()
        module(x).backward(cotangent)

    return step


def compare_forward(repeats: int = 7) -> str:
    """Compare every schedule with what it replaces, without gradients.

    Args:
        repeats (int): As in :func:`compare`.

    Returns:
        str: A Markdown table.
    """
    lines = ["| what | replaced, ms | ours, ms | times faster |", "|---|---|---|---|"]
    with torch.no_grad():
        pairs = [pair for source in (operations, modules) for pair in source()]
        for name, slow, fast in tqdm(pairs, desc="forward", unit="pair"):
            before, after, ratio = compare(slow, fast, repeats)
            lines.append(
                f"| {name} | {before * 1e3:.1f} | {after * 1e3:.1f} | {ratio:.2f} |"
            )
    return "\n".join(lines)


def compare_training(repeats: int = 7) -> str:
    """Compare time and peak memory of Poly-NL's training step with the plain form's.

    Args:
        repeats (int): As in :func:`compare`.

    Returns:
        str: A Markdown table.
    """
    lines = [
        "| training step | plain, ms (MiB) | ours, ms (MiB) | time | memory |",
        "|---|---|---|---|---|",
    ]
    for name, plain, ours in tqdm(list(training_steps()), desc="training", unit="pair"):
        before, after, ratio = compare(plain, ours, repeats)
        peaks = [peak_extra_memory(call, CPU) / MIB for call in (plain, ours)]
        lines.append(
            f"| {name} | {before * 1e3:.1f} ({peaks[0]:.1f}) | {after * 1e3:.1f} "
            f"({peaks[1]:.1f}) | {1 / ratio:.2f} | {peaks[1] / peaks[0]:.2f} |"
        )
    return "\n".join(lines)


def measure_quadratic_modes() -> str:
    """Measure the memory of what would be N x N, at N and half of it.

    Returns:
        str: A Markdown table.
    """
    lines = [
        "| mode, training | N | peak, MiB | of one N x N matrix | from N / 2 |",
        "|---|---|---|---|---|",
    ]
    for mode, half, whole in tqdm(list(quadratic_modes()), desc="memory", unit="mode"):
        before, after = (peak_extra_memory(call, CPU) for _, call in (half, whole))
        positions = whole[0]
        lines.append(
            f"| {mode} | {positions} | {after / MIB:.1f} | "
            f"{after / (4 * positions**2):.3f} | {after / before:.2f} |"
        )
    return "\n".join(lines)
