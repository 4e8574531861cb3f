"""What sharing clips over ranks costs and saves: ``measure_clip_parallel.py ...``."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from polynl_mm import register
from polynl_mm.atomic_files import expect_outputs, write_json
from polynl_mm.recognizers.command_line import add_cfg_options
from polynl_mm.stack import require_mmaction2
from polynl_mm.user_errors import UserError, user_errors


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line.

    Args:
        argv (Sequence[str] | None): Arguments; default those of the process.

    Returns:
        argparse.Namespace: One attribute per option.
    """
    parser = argparse.ArgumentParser(
        description="Measure memory, time and traffic of a training step on random "
        "clips: one process, and ranks that share each clip."
    )
    parser.add_argument("config", help="config file, or mmaction::recognition/...")
    parser.add_argument("--ranks", type=int, default=2, help="that share a clip")
    parser.add_argument("--batch-size", type=int, default=1, help="clips of a step")
    parser.add_argument(
        "--shape",
        type=int,
        nargs=4,
        required=True,
        metavar="N",
        help="one clip: 3 T H W, of a 3D recognizer",
    )
    parser.add_argument("--steps", type=int, help="steps a turn")
    parser.add_argument("--rounds", type=int, help="turns of each")
    parser.add_argument("--threads", type=int, help="threads of each process")
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], help="default: cuda where there is one"
    )
    parser.add_argument("--out", type=Path, default=Path("work_dirs/clip_parallel"))
    parser.add_argument("--page", type=Path, help="write the table into this page, too")
    add_cfg_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print a table, and write ``clip_parallel.json``.

    Args:
        argv (Sequence[str] | None): Arguments; default those of the process.
    """
    args = parse_args(argv)
    with user_errors():
        register()
        import torch

        from polynl_mm.analysis.cost.clip_sharing import (
            format_table,
            measure_clip_sharing,
        )
        from polynl_mm.analysis.cost.scaling import read_setting
        from polynl_mm.experiments.page_tables import check_page, write_table
        from polynl_mm.recognizers.configs import load_config

        written = args.out / "clip_parallel.json"
        expect_outputs(
            {f"the {written.name} of --out": written, "--page": args.page},
            {"--out": args.out},
            {"config": args.config},
        )
        if args.page:
            check_page(args.page, "clip-parallel")
        require_mmaction2()
        cfg = load_config(args.config, args.cfg_options)
        if args.ranks < 2:
            raise UserError(f"--ranks is a whole number from 2, not {args.ranks}.")
        args.processes = [1, args.ranks]
        setting = replace(read_setting(cfg, args), processes=(args.ranks,))
        alone, ranks = measure_clip_sharing(cfg, setting)
        table = format_table(alone, ranks)
        print(table)
        write_json(
            written,
            {
                "config": args.config,
                "setting": asdict(setting),
                "torch": torch.__version__,
                "one_process": asdict(alone),
                "ranks": [asdict(cost) for cost in ranks],
            },
        )
        if args.page:
            write_table(table, args.page, "clip-parallel")
