"""The parts of the report on a GPU: each measures, and saves what it has by then."""

import importlib.util
import os
import statistics
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from functools import partial

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from polynl_mm.analysis.accuracy.runs import ROOT
from polynl_mm.analysis.cost.network_setting import MMCV, NO_PLUGIN
from polynl_mm.analysis.cost.setting import Setting
from polynl_mm.stack import require_mmaction2
from polynl_mm.stack.float32_products import let_products_follow_convolutions

Save = Callable[[dict], None]
DTYPES = ("float32", "bfloat16")
# C = 512 and 28 x 28 positions a frame: N from 1568 to 401 408.
CHANNELS, SIZE, CLIP_LENGTHS = 512, 28, (2, 8, 32, 128, 512)
REPLAYED_LENGTHS = (2, 8)
FAST_SUBJECTS = ("conv 1x1x1", "Poly-NL as three convolutions", "PolyNL3d")
CONFIG = "configs/slowonly/slowonly_r50-polynl_8xb16-8x8x1-256e_kinetics400-rgb.py"
BUDGETS_GB = (16, 40, 80)
# Seconds until a part begins: of Python's imports.
START_UP = 20
# The variants that are trained compiled, too, by order of interest.
COMPILED = (NO_PLUGIN, "PolyNL, reduction 1", MMCV)


def run_machine(args: Namespace, save: Save) -> None:
    """Measure the bandwidth of the memory and the peak of matrix products.

    Args:
        args (Namespace): The command line of ``tests/gpu.sh``.
        save (Callable): Keeps what was found.
    """
    save(measure_machine(args.device))


def measure_machine(device: str) -> dict:
    """Return what the machine is, and what it reaches.

    Args:
        device (str): ``'cuda'`` or ``'cpu'``.

    Returns:
        dict: ``name``, ``torch``, ``bytes_per_second`` of a copy, read and written, and
        ``flops`` a second of square matrix products by precision.
    """
    cuda = device == "cuda"
    name = torch.cuda.get_device_name() if cuda else "CPU"
    bytes_ = 2**30 if cuda else 2**26
    source = torch.zeros(bytes_, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = _fastest(lambda: target.copy_(source), device)
    flops, width = {}, 8192 if cuda else 512
    for precision in ("float32", "tf32", "bfloat16"):
        dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        left = torch.randn(width, width, device=device, dtype=dtype)
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        flops[precision] = 2 * width**3 / _fastest(lambda a=left: a @ a, device)
        torch.backends.cuda.matmul.allow_tf32 = before
    return {
        "name": name,
        "torch": torch.__version__,
        "bytes_per_second": 2 * bytes_ / seconds,
        "flops": flops,
    }


def _fastest(call: Callable[[], object], device: str, rounds: int = 10) -> float:
    times = []
    for _ in range(rounds):
        _wait(device)
        start = time.perf_counter()
        call()
        _wait(device)
        times.append(time.perf_counter() - start)
    return min(times)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


class _Outcomes:
    """A plugin of pytest that counts and keeps failures, also where it is cut off."""

    def __init__(self, save: Save) -> None:
        self.counts: dict[str, int] = {}
        self.failures: dict[str, str] = {}
        self._save, self._saved = save, 0.0

    def save(self) -> None:
        self._save({"counts": self.counts, "failures": self.failures})
        self._saved = time.perf_counter()

    def pytest_runtest_logreport(self, report) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.counts[report.outcome] = self.counts.get(report.outcome, 0) + 1
        if report.failed:
            self.failures[report.nodeid] = str(report.longrepr)[-1500:]
        if report.failed or time.perf_counter() - self._saved > 5:
            self.save()


def run_tests(args: Namespace, save: Save) -> int:
    """Run the tests that need a GPU.

    Args:
        args (Namespace): The command line of ``tests/gpu.sh``.
        save (Callable): Keeps what was found.

    Returns:
        int: 0, or 1 if a test failed or none ran.
    """
    import pytest

    os.environ["POLYNL_TEST_DEVICE"] = args.device
    outcomes = _Outcomes(save)
    line = [str(ROOT / "tests/gpu"), "-m", "cuda", "-p", "no:cacheprovider"]
    if importlib.util.find_spec("xdist"):  # compilers and tools wait much for CPUs
        workers = min(8, max(1, (os.cpu_count() or 1) // 2))
        line += ["-n", str(workers), "--dist", "worksteal"]
    if args.fast:
        line += ["-k", "(PolyNL3d and (schedule or whole)) or lower_the_loss"]
    status = pytest.main(line, plugins=[outcomes])
    outcomes.save()
    return int(status != 0)


def run_benchmark(args: Namespace, save: Save) -> None:
    """Time the blocks, their peers and one convolution over lengths of clips.

    Args:
        args (Namespace): The command line of ``tests/gpu.sh``.
        save (Callable): Keeps what was found.
    """
    from polynl_mm.analysis.cost.benchmark import SUBJECTS, benchmark, write_results

    machine = measure_machine(args.device)
    found: dict = {"machine": machine, "channels": CHANNELS, "points": {}}
    for dtype in DTYPES:
        setting = Setting(
            channels=64 if args.fast else CHANNELS,
            clip_lengths=(2,) if args.fast else CLIP_LENGTHS,
            size=8 if args.fast else SIZE,
            dtype=dtype,
            device=args.device,
            repeats=2 if args.fast else 7,
            max_affinity=2e9,
        )
        subjects = list(FAST_SUBJECTS if args.fast else SUBJECTS)
        points = []

        def keep(done, dtype=dtype, setting=setting) -> None:
            found["points"][dtype] = [
                {**asdict(p), "roofline": roofline_share(p, setting, machine)}
                for p in done
            ]
            save(found)

        points = benchmark(setting, subjects, keep)
        write_results(points, setting, args.out / f"benchmark-{dtype}")
    if args.device != "cuda" or args.fast:
        return
    # What is left where nothing waits for the launching of kernels.
    found["replayed"] = {}
    for dtype in DTYPES:
        setting = Setting(
            channels=CHANNELS,
            clip_lengths=REPLAYED_LENGTHS,
            size=SIZE,
            dtype=dtype,
            device=args.device,
            repeats=15,
            replayed=True,
        )
        found["replayed"][dtype] = list(map(asdict, benchmark(setting)))
        save(found)


def roofline_share(point, setting: Setting, machine: dict) -> float | None:
    """Return which share of the machine's measured limits a block reaches.

    The limit is the longer of two times: its counted operations at the measured peak of
    matrix products, and its input read once and its output written once at the measured
    bandwidth.

    Args:
        point (Point): A measurement.
        setting (Setting): How it was measured.
        machine (dict): From :func:`measure_machine`.

    Returns:
        float | None: From 0 to about 1; None in training, which is not counted.
    """
    from polynl_mm.analysis.cost.benchmark import SUBJECTS
    from polynl_mm.analysis.cost.operations import count_cost

    if point.training:
        return None
    frames = point.positions // setting.size**2
    shape = (setting.batch, setting.channels, frames, setting.size, setting.size)
    with torch.device("meta"):
        module, x = SUBJECTS[point.subject](setting.channels), torch.empty(shape)
    module.eval()
    with torch.no_grad():
        flops = 2e9 * count_cost(module, lambda: module(x)).gflops
    size = 4 if setting.dtype == "float32" else 2
    precision = setting.dtype
    if precision == "float32" and torch.backends.cudnn.allow_tf32:
        precision = "tf32"
    limit = max(
        flops / machine["flops"][precision],
        2 * x.numel() * size / machine["bytes_per_second"],
    )
    return limit / (point.milliseconds / 1e3)


def run_models(args: Namespace, save: Save) -> None:
    """Train steps of SlowOnly-R50 with and without five PolyNL3d.

    Args:
        args (Namespace): The command line of ``tests/gpu.sh``.
        save (Callable): Keeps what was found.
    """
    start = time.perf_counter()
    require_mmaction2()
    from mmengine.registry import init_default_scope

    from polynl_mm.analysis.cost.budgets import fit_growth, predicted
    from polynl_mm.analysis.cost.operations import count_recognizer_cost
    from polynl_mm.analysis.cost.training_steps import Trainer
    from polynl_mm.analysis.cost.whole_networks import variants_of
    from polynl_mm.recognizers.configs import load_config

    init_default_scope("mmaction")
    let_products_follow_convolutions()
    cfg = load_config(str(ROOT / CONFIG))
    if args.device == "cuda":
        cfg.optim_wrapper.update(type="AmpOptimWrapper", dtype="bfloat16")
    shape = (3, 8, 32, 32) if args.fast else (3, 8, 224, 224)
    batch, rounds = (1, 1) if args.fast else (8, 10)
    device = torch.device(args.device)
    trainers, rows = {}, {}
    chosen = variants_of(cfg, (1,) if args.fast else (1, 4, 8))
    for name, variant in chosen.items():
        trainers[name] = trainer = Trainer(variant, name, device)
        cost = count_recognizer_cost(trainer.model, shape)
        rows[name] = {"gflops": cost.gflops, "parameters": cost.parameters}
    save({"shape": shape, "batch": batch, "rows": rows})
    batches = {name: trainer.batch(batch, shape) for name, trainer in trainers.items()}

    def take_turns(names: Iterable[str], key: str) -> None:
        times: dict[str, list[float]] = {name: [] for name in names}
        for turn in range(rounds + 2):  # the first ones warm up
            for name, taken in times.items():
                seconds = trainers[name].seconds_of_step(batches[name])
                taken += [seconds] if turn > 1 else []
        for name, taken in times.items():
            rows[name][key] = 1e3 * statistics.median(taken)
        save({"shape": shape, "batch": batch, "rows": rows})

    take_turns(trainers, "milliseconds")
    if args.device == "cuda":
        for name, trainer in trainers.items():
            busy = _kernel_seconds(partial(trainer.step, batches[name]))
            rows[name]["kernel_milliseconds"] = 1e3 * busy
        save({"shape": shape, "batch": batch, "rows": rows})
    half = (shape[0], shape[1] // 2, *shape[2:])
    for name, trainer in trainers.items():
        two, three = (trainer.peak_bytes(size, shape) for size in (2, 3))
        growth = fit_growth(shape[1], two, three, trainer.peak_bytes(2, half))
        rows[name]["bytes"] = trainer.peak_bytes(batch, shape)
        # Whole eights, and a twentieth in hand for what the allocator rounds up.
        rows[name]["longest"] = {
            str(budget): 8
            * predicted(lambda n, g=growth: g.predict(1, 8 * n), 0.95e9 * budget)
            for budget in BUDGETS_GB
        }
    save({"shape": shape, "batch": batch, "rows": rows})
    for name in COMPILED if not args.fast else ():
        # In the time that is left, counting on as much as the one before took. One at a
        # time: dynamo leaves a second network alone while it has compiled a first.
        began = time.perf_counter()
        torch.compiler.reset()
        trainer = trainers[name]
        trainer.model.backbone = torch.compile(trainer.model.backbone)
        trainer.seconds_of_step(batches[name])
        took = time.perf_counter() - began
        rows[name]["seconds_to_compile"] = took
        take_turns([name], "compiled_milliseconds")
        if time.perf_counter() - start + 1.3 * took > args.seconds - START_UP:
            break


def _kernel_seconds(call: Callable[[], None]) -> float:
    """Return how long the GPU worked for a call, without what it waited between."""
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        call()
        torch.cuda.synchronize()
    kernels = (e for e in recorded.events() if e.device_type == DeviceType.CUDA)
    return 1e-6 * sum(event.time_range.elapsed_us() for event in kernels)


def run_quickstart(args: Namespace, save: Save) -> None:
    """Run the quickstart on the device.

    Args:
        args (Namespace): The command line of ``tests/gpu.sh``.
        save (Callable): Keeps what was found.
    """
    from polynl_mm.datasets.bookends_clips import BookendsParameters
    from polynl_mm.experiments.quickstart import CONFIGS, FAST, quickstart

    if args.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    began = time.perf_counter()
    # Found where this process found its packages.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    os.environ["PYTHON"] = sys.executable
    size = FAST  # what the limit of this part allows
    if args.fast:
        size = replace(
            FAST,
            data=str(args.out / "bookends"),
            parameters=BookendsParameters(train=32, val=16),
            epochs=1,
            processes=1,  # as on one GPU
        )
    results = quickstart(size, args.out / "quickstart", 0)
    found = {
        name: {key: results[name][key] for key in ("top1", "seconds_per_epoch")}
        for name in CONFIGS
    }
    save({"results": found, "seconds_in_all": time.perf_counter() - began})
