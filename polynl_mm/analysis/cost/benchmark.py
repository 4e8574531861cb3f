"""Time and memory of the plugins and of their peers, over a sweep of clip lengths."""

import csv
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from mmcv.cnn.bricks.non_local import NonLocal3d
from torch import Tensor, nn
from tqdm import tqdm

import polynl_mm
from polynl_mm.analysis.cost.memory import peak_extra_memory
from polynl_mm.analysis.cost.peers import PlainPolyNL3d
from polynl_mm.analysis.cost.setting import Setting
from polynl_mm.analysis.cost.sweep_pictures import draw_sweep
from polynl_mm.analysis.cost.sweep_results import Point
from polynl_mm.atomic_files import renamed_when_complete, write_json
from polynl_mm.stack.float32_products import let_products_follow_convolutions

FLOOR = "conv 1x1x1"
# name: how to build it for C channels.
SUBJECTS: dict[str, Callable[[int], nn.Module]] = {
    FLOOR: lambda c: nn.Conv3d(c, c, 1),
    "mmcv NonLocal3d": lambda c: NonLocal3d(c),
    "mmcv NonLocal3d, sub_sample": lambda c: NonLocal3d(c, sub_sample=True),
    "mmcv NonLocal3d, dot product": lambda c: NonLocal3d(c, mode="dot_product"),
    "Poly-NL as three convolutions": lambda c: PlainPolyNL3d(c),
    "PolyNL3d": lambda c: polynl_mm.PolyNL3d(c),
    "NonLocalBlock3d": lambda c: polynl_mm.NonLocalBlock3d(c),
    "NonLocalBlock3d, sub_sample": lambda c: polynl_mm.NonLocalBlock3d(c, True),
    "NonLocalBlock3d, dot product": lambda c: polynl_mm.NonLocalBlock3d(
        c, mode="dot_product"
    ),
    "NonLocalBlock3d, concatenation": lambda c: polynl_mm.NonLocalBlock3d(
        c, mode="concatenation"
    ),
    "SpectralNL3d": lambda c: polynl_mm.SpectralNL3d(c),
    "NonLocalStage3d": lambda c: polynl_mm.NonLocalStage3d(c),
    "PyramidNL3d": lambda c: polynl_mm.PyramidNL3d(c),
    "DoubleAttention3d": lambda c: polynl_mm.DoubleAttention3d(c),
    "EfficientAttention3d": lambda c: polynl_mm.EfficientAttention3d(c),
    "GlobalContext3d": lambda c: polynl_mm.GlobalContext3d(c),
    "CompactGeneralizedNL3d": lambda c: polynl_mm.CompactGeneralizedNL3d(c),
    "CrissCross3d": lambda c: polynl_mm.CrissCross3d(c),
}
PEERS = (
    FLOOR,
    *(name for name in SUBJECTS if name.startswith("mmcv")),
    "Poly-NL as three convolutions",
)
# Time quadratic in N, with so many positions to each key: left out of longer clips.
QUADRATIC = {
    "mmcv NonLocal3d": 1,
    "mmcv NonLocal3d, sub_sample": 4,
    "mmcv NonLocal3d, dot product": 1,
    "NonLocalBlock3d": 1,
    "NonLocalBlock3d, sub_sample": 4,
    "NonLocalStage3d": 1,
}


def benchmark(
    setting: Setting,
    subjects: Iterable[str] = SUBJECTS,
    save: Callable[[list[Point]], None] | None = None,
) -> list[Point]:
    """Measure subjects over the sweep; at each point they take turns.

    Args:
        setting (Setting): What and how.
        subjects (Iterable[str]): Keys of ``SUBJECTS``.
        save (Callable, optional): Called with what there is after each clip length, so
            that a long sweep that is cut off leaves its results.

    Returns:
        list[Point]: By clip length, training or not, and subject. Quadratic subjects
        have no point where they would not fit.
    """
    let_products_follow_convolutions()
    subjects = list(subjects)
    points = []
    sweep = [(t, training) for t in setting.clip_lengths for training in (False, True)]
    for clip_len, training in tqdm(sweep, desc="benchmark", unit="point"):
        positions = setting.positions(clip_len)
        affinity = 4.0 * setting.batch * positions**2
        chosen = [
            s
            for s in subjects
            if s not in QUADRATIC or affinity / QUADRATIC[s] <= setting.max_affinity
        ]
        points += _measure(setting, chosen, clip_len, training)
        if save is not None and training:
            save(points)
    return points


def _measure(
    setting: Setting, subjects: Sequence[str], clip_len: int, training: bool
) -> list[Point]:
    torch.manual_seed(0)
    device = torch.device(setting.device)
    shape = (setting.batch, setting.channels, clip_len, setting.size, setting.size)
    x = torch.randn(shape, device=device, requires_grad=training)
    calls = {}
    for name in subjects:
        module = SUBJECTS[name](setting.channels).to(device).train(training)
        if setting.compiled and name not in PEERS:
            module = _compile(module, x)
        calls[name] = _call(module, x, setting, training)
    peaks = {name: peak_extra_memory(call, device) for name, call in calls.items()}
    if setting.replayed:
        calls = {name: _replay_of(call) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(setting.repeats):
        for name, call in calls.items():
            times[name].append(_time(call, device))
    return [
        Point(
            name,
            setting.positions(clip_len),
            training,
            statistics.median(times[name]) * 1e3,
            peaks[name] / 2**20,
        )
        for name in calls
    ]


def _compile(module: nn.Module, x: Tensor) -> nn.Module:
    """Compile a plugin, off its identity, and hold its output against eager's."""
    torch.compiler.reset()  # one clip length is no reason to compile for all others
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.05)
    compiled = torch.compile(module, fullgraph=True)
    torch.testing.assert_close(compiled(x), module(x), rtol=1e-4, atol=1e-4)
    return compiled


def _replay_of(call: Callable[[], None]) -> Callable[[], None]:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # libraries make their workspaces
        call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def _call(
    module: nn.Module, x: Tensor, setting: Setting, training: bool
) -> Callable[[], None]:
    cotangent = torch.randn_like(x) if training else None

    def call() -> None:
        half = setting.dtype != "float32"
        dtype = getattr(torch, setting.dtype) if half else None
        with (
            torch.set_grad_enabled(training),
            torch.autocast(setting.device, dtype=dtype, enabled=half),
        ):
            y = module(x)
        if training:
            y.backward(cotangent.to(y.dtype))
            x.grad = None
            module.zero_grad()

    return call


def _time(call: Callable[[], None], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def write_results(points: Sequence[Point], setting: Setting, folder: Path) -> None:
    """Write ``benchmark.json``, ``benchmark.csv``, ``time.png`` and ``memory.png``.

    Args:
        points (Sequence[Point]): From :func:`benchmark`.
        setting (Setting): What was measured.
        folder (Path): Where; made where it is missing.
    """
    rows = [asdict(point) for point in points]
    machine = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name()
        if setting.device == "cuda"
        else f"CPU, {torch.get_num_threads()} threads",
    }
    content = {"setting": asdict(setting), "machine": machine, "points": rows}
    write_json(folder / "benchmark.json", content)
    with (
        renamed_when_complete(folder / "benchmark.csv") as partial,
        open(partial, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    where = f"C = {setting.channels}, {setting.size} x {setting.size} positions a frame"
    subtitle = f"{where}, {setting.dtype}, {machine['device']}"
    draw_sweep(points, "milliseconds", setting.size, folder / "time.png", subtitle)
    draw_sweep(points, "peak_mib", setting.size, folder / "memory.png", subtitle)
