"""Bookends for every block: trains each with several seeds and writes the table."""

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from polynl_mm.analysis.accuracy.runs import ROOT, accuracy_curve, seconds_per_epoch
from polynl_mm.atomic_files import expect_outputs, write_json
from polynl_mm.datasets.bookends import generate_bookends
from polynl_mm.datasets.bookends_clips import LEVELS
from polynl_mm.experiments.page_tables import check_page, write_table
from polynl_mm.experiments.quickstart import FULL, PROCESSES, Size, measure_model, train
from polynl_mm.installation import CARRIED
from polynl_mm.text_files import parse_json, read_text
from polynl_mm.user_errors import UserError, did_you_mean, user_errors

PATTERN = "configs/bookends/slowonly_r18{}_2xb16-8x2x1-5e_bookends-rgb.py"
PAGE = ROOT / "docs/bookends.md"
# By level: what is trained on, and which of the page's tables has the results.
SIZES = {
    level: replace(
        FULL,
        data=FULL.data if level == 1 else f"{FULL.data}_level{level}",
        parameters=replace(FULL.parameters, level=level),
    )
    for level in LEVELS
}
TABLES = {level: "table" if level == 1 else f"level {level}" for level in LEVELS}
# Name in the file name of its config: title.
BLOCKS = {
    "": "no plugin",
    "-polynl": "PolyNL3d",
    "-polynl-r4": "PolyNL3d, reduction 4",
    "-polynl-r8": "PolyNL3d, reduction 8",
    "-nl-embedded-gaussian": "NonLocalBlock3d, embedded Gaussian",
    "-nl-dot-product": "NonLocalBlock3d, dot product",
    "-spectralnl": "SpectralNL3d (SNL)",
    "-gspectralnl": "SpectralNL3d, order 2 (gSNL)",
    "-nlstage": "NonLocalStage3d",
    "-pyramidnl": "PyramidNL3d",
    "-doubleattention": "DoubleAttention3d",
    "-efficientattention": "EfficientAttention3d",
    "-globalcontext": "GlobalContext3d",
    "-cgnl": "CompactGeneralizedNL3d",
    "-crisscross": "CrissCross3d",
}


def run_once(block: str, seed: int, size: Size, work_dir: Path) -> dict:
    """Train one block with one seed, unless that has been done.

    Args:
        block (str): A key of ``BLOCKS``.
        seed (int): The seed of the training.
        size (Size): How much to train.
        work_dir (Path): Where runs and results go.

    Returns:
        dict: ``top1`` after the last epoch, ``seconds_per_epoch``, ``curve``.
    """
    run = work_dir / (block.strip("-") or "no_plugin") / f"seed_{seed}"
    done = run.with_suffix(".json")
    if done.is_file():
        try:
            return parse_json(read_text(done, "result"), str(done))
        except json.JSONDecodeError as error:
            raise UserError(
                f"{done} is no JSON; delete it, and its run is made again."
            ) from error
    # A run that was cut off goes on from its last checkpoint.
    records = train(
        PATTERN.format(block),
        f"{BLOCKS[block]}, seed {seed}",
        size,
        run,
        seed,
        "--resume",
    )
    curve = accuracy_curve(records)
    result = dict(
        top1=curve[-1], seconds_per_epoch=seconds_per_epoch(records), curve=curve
    )
    write_json(done, result)
    return result


def format_results(results: dict[str, list[dict]], costs: dict[str, dict]) -> str:
    """Lay the results out as a Markdown table.

    Args:
        results (dict[str, list[dict]]): For each block, :func:`run_once` by seed.
        costs (dict[str, dict]): For each block, ``parameters`` and ``gflops``.

    Returns:
        str: A row for each block: mean and sample standard deviation of top-1, the
        lowest, seconds per epoch of the fastest seed (the others may have shared the
        machine), parameters, GFLOPs.
    """
    lines = [
        "| block | seeds | top-1, % | lowest | s/epoch | parameters | GFLOPs |",
        "|---|---|---|---|---|---|---|",
    ]
    for block, runs in results.items():
        top1 = [100 * run["top1"] for run in runs]
        spread = f" ± {statistics.stdev(top1):.1f}" if len(top1) > 1 else ""
        seconds = min(run["seconds_per_epoch"] for run in runs)
        cost = costs[block]
        lines.append(
            f"| {BLOCKS[block]} | {len(top1)} | {statistics.mean(top1):.1f}{spread} "
            f"| {min(top1):.1f} | {seconds:.1f} | {cost['parameters']:,} "
            f"| {cost['gflops']:.3f} |"
        )
    return "\n".join(lines)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line of ``tools/reproduce/bookends.sh``.

    Args:
        argv (Sequence[str], optional): Arguments; by default those of the process.

    Returns:
        argparse.Namespace: The arguments.
    """
    parser = argparse.ArgumentParser(
        description="Train every block on Bookends and write a table of "
        "docs/bookends.md."
    )
    parser.add_argument(
        "--level", type=int, choices=LEVELS, default=1, help="of the data; default: 1"
    )
    names = [block.strip("-") or "no_plugin" for block in BLOCKS]
    parser.add_argument(
        "--blocks",
        nargs="+",
        metavar="NAME",
        help=f"train these only, and write no page: {', '.join(names)}",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--work-dir",
        type=Path,
        help="default: work_dirs/reproduce_bookends, with _level2 behind it at level 2",
    )
    parser.add_argument(
        "--results",
        type=Path,
        help="default: docs/results/bookends_level1.json, or that of the level",
    )
    parser.add_argument("--page", type=Path, default=PAGE)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run what has not been run yet, and write the table.

    Args:
        argv (Sequence[str], optional): Arguments; by default those of the process.
    """
    args = parse_args(argv)
    by_name = {block.strip("-") or "no_plugin": block for block in BLOCKS}
    size, name_of_table = SIZES[args.level], TABLES[args.level]
    behind = "" if args.level == 1 else f"_level{args.level}"
    work_dir = args.work_dir or ROOT / f"work_dirs/reproduce_bookends{behind}"
    results_file = (
        args.results or ROOT / f"docs/results/bookends_level{args.level}.json"
    )
    with user_errors():
        expect_outputs(
            {"--results": results_file, "--page": args.page}, {"--work-dir": work_dir}
        )
        for name in args.blocks or ():
            if name not in by_name:
                raise UserError(
                    f"--blocks: there is no {name!r}{did_you_mean(name, by_name)}"
                )
        check_page(args.page, name_of_table)  # before hours of training
        # What is named twice is one run all the same.
        blocks = list(dict.fromkeys(by_name[name] for name in args.blocks or by_name))
        seeds = list(dict.fromkeys(args.seeds))
        generate_bookends(ROOT / size.data, size.parameters, jobs=PROCESSES)
        results: dict[str, list[dict]] = {block: [] for block in blocks}
        # Seed by seed, so that a run cut short has something of every block.
        todo = [(seed, block) for seed in seeds for block in blocks]
        for seed, block in tqdm(todo, desc="Bookends runs", unit="run"):
            results[block].append(run_once(block, seed, size, work_dir))
        costs = {
            block: measure_model(CARRIED / PATTERN.format(block)) for block in blocks
        }
        table = format_results(results, costs)
        print(table)
        if args.blocks:
            print(f"\nThe runs are in {work_dir}; no page was written (--blocks).")
            return
        write_table(table, args.page, name_of_table)
        write_json(
            results_file,
            {BLOCKS[b]: dict(runs=results[b], **costs[b]) for b in blocks},
        )
        print(f"\nWritten to {args.page} and {results_file}.")
        if args.page == PAGE:
            from polynl_mm.experiments.reduction_accuracy import write_reduction

            write_reduction()
