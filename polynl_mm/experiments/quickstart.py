"""The main job: Bookends with and without PolyNL3d, from videos to a picture."""

import argparse
import json
import shutil
import signal
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from polynl_mm.analysis.accuracy.runs import (
    ROOT,
    EpochReporter,
    accuracy_curve,
    find_scalars,
    read_scalars,
    run_tool,
    seconds_per_epoch,
)
from polynl_mm.analysis.colours import FLOOR, colour_of
from polynl_mm.analysis.line_labels import Label, label_lines
from polynl_mm.atomic_files import (
    expect_outputs,
    renamed_when_complete,
    write_json,
)
from polynl_mm.datasets.bookends import generate_bookends
from polynl_mm.datasets.bookends_clips import BookendsParameters
from polynl_mm.installation import CARRIED, TOOLS
from polynl_mm.stack.literal_texts import literal_texts
from polynl_mm.user_errors import user_errors

CONFIGS = {
    "no_plugin": "configs/bookends/slowonly_r18_2xb16-8x2x1-5e_bookends-rgb.py",
    "poly_nl": "configs/bookends/slowonly_r18-polynl_2xb16-8x2x1-5e_bookends-rgb.py",
}
TITLES = {"no_plugin": "no plugin", "poly_nl": "PolyNL3d"}
CHANCE = 0.5
PROCESSES = 2  # of CPUs; of GPUs as many, where there are as many
INPUT_SHAPE = (3, 8, 64, 64)  # (C, T, H, W) of the clips that the configs feed


@dataclass(frozen=True)
class Size:
    """How much data and training a quickstart takes."""

    data: str
    work_dir: str
    parameters: BookendsParameters
    epochs: int
    batch_size: int  # clips, on each of PROCESSES
    processes: int = PROCESSES  # at most; the batch over all is the same


FULL = Size(
    data="data/bookends",
    work_dir="work_dirs/quickstart",
    parameters=BookendsParameters(),
    epochs=5,
    batch_size=16,
)
# Fewer colours are learned from fewer clips, and half the batch gives twice the steps.
FAST = Size(
    data="data/bookends_fast",
    work_dir="work_dirs/quickstart_fast",
    parameters=BookendsParameters(
        train=1000, val=240, colours=("red", "green", "blue", "yellow")
    ),
    epochs=3,
    batch_size=8,
)


def measure_model(config: str | Path) -> dict[str, float]:
    """Count the parameters of a config's model and the operations of one clip.

    Args:
        config (str | Path): The config file.

    Returns:
        dict[str, float]: ``parameters`` and ``gflops``, as :class:`cost.Cost` has them.
    """
    import torch
    from mmengine.registry import MODELS, init_default_scope

    from polynl_mm import register
    from polynl_mm.analysis.cost.operations import count_recognizer_cost
    from polynl_mm.recognizers.configs import load_config
    from polynl_mm.stack import require_mmaction2

    with warnings.catch_warnings():
        # Of the stack's imports; the user can do nothing about them.
        warnings.simplefilter("ignore")
        register()
        require_mmaction2()
        cfg = load_config(str(config))
        init_default_scope("mmaction")
        with torch.device("meta"):  # counting needs shapes, not numbers
            model = MODELS.build(cfg.model)
    return asdict(count_recognizer_cost(model, INPUT_SHAPE))


def format_table(results: Mapping[str, Mapping]) -> str:
    """Lay the results out as a table.

    Args:
        results (Mapping[str, Mapping]): For each name in ``CONFIGS``: ``top1``,
            ``parameters``, ``gflops`` and ``seconds_per_epoch``.

    Returns:
        str: Lines of equal width.
    """
    row = "{:<10} {:>8} {:>11} {:>8} {:>8}".format
    lines = [row("", "top-1", "parameters", "GFLOPs", "s/epoch")]
    for name in CONFIGS:
        result = results[name]
        lines.append(
            row(
                TITLES[name],
                f"{result['top1']:.1%}",
                f"{result['parameters']:,}",
                f"{result['gflops']:.3f}",
                f"{result['seconds_per_epoch']:.1f}",
            )
        )
    return "\n".join(lines)


@literal_texts()
def plot_accuracy(curves: Mapping[str, Sequence[float]], path: str | Path) -> None:
    """Draw the validation accuracies against the epochs.

    Args:
        curves (Mapping[str, Sequence[float]]): For each name in ``CONFIGS``, top-1
            from 0 to 1 after each epoch.
        path (str | Path): The picture to write, PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Not pyplot: it would set the process's backend, and looks for a display.
    figure = Figure(figsize=(6.4, 4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    labels = [Label(0, 100 * CHANCE - 3, "chance", FLOOR)]
    for name, curve in curves.items():
        colour, ours = colour_of(name), name == "poly_nl"
        epochs = range(1, len(curve) + 1)
        percent = [100 * top1 for top1 in curve]
        axes.plot(
            epochs,
            percent,
            color=colour,
            marker="o",
            linewidth=3 if ours else 2,
            clip_on=False,  # the last point stands on the edge
        )
        labels.append(Label(len(curve), percent[-1], TITLES[name], colour, ours))
    axes.axhline(100 * CHANCE, color=FLOOR, linestyle=":")
    last = max(map(len, curves.values()))
    axes.set(
        title="Bookends: do first and last disc have the same colour?",
        xlabel="epoch",
        ylabel="validation top-1 (%)",
        xlim=(0, last),
        ylim=(30, 102),
        xticks=range(last + 1),
    )
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.draw_without_rendering()  # the place of the axes
    label_lines(axes, labels, size=11)
    with renamed_when_complete(path) as partial:
        figure.savefig(partial, format="png")


def count_processes(size: Size) -> int:
    """Return how many processes train: no more than there are GPUs, if there are any.

    Args:
        size (Size): How much to train, and by how many at most.

    Returns:
        int: 1 or 2; the batch over all is the same.
    """
    import torch

    return min(size.processes, torch.cuda.device_count() or PROCESSES)


def config_options(size: Size) -> list[str]:
    """Return the ``--cfg-options`` that adapt the configs to a size.

    Args:
        size (Size): How much to train, on which data.

    Returns:
        list[str]: ``--cfg-options`` and its arguments.
    """
    batch_size = size.batch_size * PROCESSES // count_processes(size)
    options = [
        f"train_cfg.max_epochs={size.epochs}",
        f"param_scheduler.1.T_max={size.epochs}",
        f"train_dataloader.batch_size={batch_size}",
    ]
    for split, loaders in {"train": ["train"], "val": ["val", "test"]}.items():
        for loader in loaders:
            dataset = f"{loader}_dataloader.dataset"
            options.append(f"{dataset}.ann_file={size.data}/{split}.txt")
            options.append(f"{dataset}.data_prefix.video={size.data}")
    return ["--cfg-options", *options]


def train(
    config: str, title: str, size: Size, run: Path, seed: int, *extra: str
) -> list[dict]:
    """Train a config through dist_train.sh, with a line for each epoch.

    Args:
        config (str): The config file, relative to the repository.
        title (str): What to call it.
        size (Size): How much to train.
        run (Path): The work dir; its log goes beside it.
        seed (int): The seed of the training.
        *extra (str): More arguments of ``tools/train.py``.

    Returns:
        list[dict]: What MMEngine recorded, of training and validation.
    """
    print(f"Training {title} ({config})", flush=True)
    command = [
        "bash",
        str(TOOLS / "dist_train.sh"),
        config,
        str(count_processes(size)),
        *extra,
    ]
    command += ["--work-dir", str(run), "--seed", str(seed), *config_options(size)]
    reporter = EpochReporter(run, title, size.epochs)
    run_tool(command, run.with_name(f"{run.name}_train.log"), reporter)
    reporter()
    return read_scalars(find_scalars(run))


def train_and_test(
    name: str, size: Size, work_dir: Path, seed: int
) -> tuple[dict[str, float | str], list[float]]:
    """Train one of the two models through dist_train.sh, evaluate its checkpoint.

    Args:
        name (str): A key of ``CONFIGS``.
        size (Size): How much to train.
        work_dir (Path): Where the quickstart's results go.
        seed (int): The seed of the training.

    Returns:
        tuple[dict, list[float]]: The entry of results.json, and the validation
        accuracy after each epoch.
    """
    run, config = work_dir / name, CONFIGS[name]
    records = train(config, TITLES[name], size, run, seed)
    # The last checkpoint, not the best: choosing by the validation clips would
    # flatter both models.
    checkpoint = run / f"epoch_{size.epochs}.pth"
    metrics = run / "metrics.json"
    test = [
        "bash",
        str(TOOLS / "dist_test.sh"),
        config,
        str(checkpoint),
        str(count_processes(size)),
    ]
    test += ["--work-dir", str(run / "test"), "--metrics", str(metrics)]
    run_tool([*test, *config_options(size)], work_dir / f"{name}_test.log")
    result = {
        "top1": json.loads(metrics.read_text(encoding="utf-8"))["acc/top1"],
        **measure_model(CARRIED / config),
        "seconds_per_epoch": seconds_per_epoch(records),
        "checkpoint": str(checkpoint),
    }
    return result, accuracy_curve(records)


def quickstart(size: Size, work_dir: Path, seed: int) -> dict:
    """Generate, train, evaluate and draw.

    Args:
        size (Size): How much of it.
        work_dir (Path): Where the results go. What an earlier quickstart left there
            is removed first.
        seed (int): The seed of both trainings.

    Returns:
        dict: The content of ``results.json``.
    """
    for name in CONFIGS:
        shutil.rmtree(work_dir / name, ignore_errors=True)
    for stale in ("results.json", "accuracy.png"):
        (work_dir / stale).unlink(missing_ok=True)
    start = time.monotonic()
    generate_bookends(ROOT / size.data, size.parameters, jobs=PROCESSES)
    results, curves = {}, {}
    for name in CONFIGS:
        results[name], curves[name] = train_and_test(name, size, work_dir, seed)
        results[name]["validation_top1"] = curves[name]
    results.update(
        chance=CHANCE,
        train_clips=size.parameters.train,
        val_clips=size.parameters.val,
        epochs=size.epochs,
        seed=seed,
        seconds=time.monotonic() - start,
    )
    plot_accuracy(curves, work_dir / "accuracy.png")
    write_json(work_dir / "results.json", results)
    return results


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line of ``tools/quickstart.py``.

    Args:
        argv (Sequence[str], optional): Arguments; by default those of the process.

    Returns:
        argparse.Namespace: The arguments.
    """
    parser = argparse.ArgumentParser(
        description="Generate the Bookends videos, train a small recognizer without "
        "and with PolyNL3d on two processes, evaluate both, write a table and a "
        "picture."
    )
    parser.add_argument(
        "--fast",
        action="store_true",
        help="fewer clips, colours and epochs: under two minutes",
    )
    parser.add_argument("--seed", type=int, default=0, help="of both trainings")
    parser.add_argument(
        "--work-dir",
        type=Path,
        help=f"where results go (default: {FULL.work_dir}, {FAST.work_dir}); those of "
        "an earlier run there are replaced",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the quickstart from the command line.

    Args:
        argv (Sequence[str], optional): Arguments; by default those of the process.

    Raises:
        SystemExit: With one sentence if something cannot work.
    """
    args = parse_args(argv)
    size = FAST if args.fast else FULL
    # The default belongs to the checkout, what the user gives to where they stand.
    work_dir = args.work_dir.resolve() if args.work_dir else ROOT / size.work_dir
    # Like Ctrl-C, so that no training is left behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with user_errors():
        expect_outputs(folders={"--work-dir": work_dir})
        results = quickstart(size, work_dir, args.seed)
    print(f"\n{format_table(results)}\n")
    print(
        f"Everything is in {work_dir}: results.json, accuracy.png, checkpoints and "
        f"logs. Try another block: change plugins= in {CONFIGS['poly_nl']}."
    )
