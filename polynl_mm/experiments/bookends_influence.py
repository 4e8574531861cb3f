"""The table of influences in docs/bookends.md, from the trained blocks."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from polynl_mm import register
from polynl_mm.analysis.accuracy.runs import ROOT
from polynl_mm.atomic_files import expect_outputs, write_json
from polynl_mm.experiments.bookends_table import BLOCKS
from polynl_mm.experiments.page_tables import check_page, write_table
from polynl_mm.experiments.quickstart import FULL, PROCESSES
from polynl_mm.user_errors import UserError, user_errors

TABLE = "influence"


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line of ``tools/reproduce/bookends_influence.py``.

    Args:
        argv (Sequence[str], optional): Arguments; by default those of the process.

    Returns:
        argparse.Namespace: The arguments.
    """
    parser = argparse.ArgumentParser(
        description="Measure where the blocks trained by tools/reproduce/bookends.sh "
        "look, and write the second table of docs/bookends.md."
    )
    parser.add_argument(
        "--work-dir",
        type=Path,
        default=ROOT / "work_dirs/reproduce_bookends",
        help=f"folder of BLOCK/seed_N/epoch_{FULL.epochs}.pth",
    )
    parser.add_argument("--data", type=Path, help="Bookends (default: data/bookends)")
    parser.add_argument("--clips", type=int, default=50, help="validation clips")
    parser.add_argument("--page", type=Path, default=ROOT / "docs/bookends.md")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure every checkpoint of a folder, and write the table.

    Args:
        argv (Sequence[str], optional): Arguments; by default those of the process.
    """
    args = parse_args(argv)
    with user_errors():
        register()
        from polynl_mm.datasets.bookends import generate_bookends
        from polynl_mm.experiments.bookends_looks import (
            find_checkpoints,
            format_results,
            measure,
            read_clips,
        )
        from polynl_mm.stack import require_mmaction2

        record_file = args.work_dir / "influence.json"
        expect_outputs(
            {"--page": args.page, "the influence.json of --work-dir": record_file},
            {"--work-dir": args.work_dir},
        )
        check_page(args.page, TABLE)
        if args.clips < 1:
            raise UserError(f"--clips is a whole number from 1, not {args.clips}.")
        checkpoints = find_checkpoints(args.work_dir)
        require_mmaction2()
        if args.data is None:
            generate_bookends(ROOT / FULL.data, FULL.parameters, jobs=PROCESSES)
        clips = read_clips(args.data or ROOT / FULL.data, args.clips)
        results: dict[str, dict[int, dict[str, float]]] = {}
        todo = [
            (block, seed, checkpoint)
            for block, runs in checkpoints.items()
            for seed, checkpoint in runs.items()
        ]
        for block, seed, checkpoint in tqdm(todo, desc="Bookends influence"):
            measured = measure(block, checkpoint, clips)
            results.setdefault(block, {})[seed] = measured
        table = format_results(results)
        write_table(table, args.page, TABLE)
        record = {BLOCKS[block]: runs for block, runs in results.items()}
        write_json(record_file, dict(clips=len(clips), blocks=record))
        print(f"{table}\n\nWritten to {args.page} and {record_file}.")
