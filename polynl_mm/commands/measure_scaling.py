"""Training speed by number of processes: ``measure_scaling.py CONFIG --shape ...``."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from polynl_mm import register
from polynl_mm.atomic_files import expect_outputs, write_json
from polynl_mm.recognizers.command_line import add_cfg_options
from polynl_mm.stack import require_mmaction2
from polynl_mm.user_errors import user_errors


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line.

    Args:
        argv (Sequence[str] | None): Arguments; default those of the process.

    Returns:
        argparse.Namespace: One attribute per option.
    """
    parser = argparse.ArgumentParser(
        description="Measure how training speed grows with the number of processes, "
        "each with the same batch of random clips."
    )
    parser.add_argument("config", help="config file, or mmaction::recognition/...")
    parser.add_argument(
        "--processes",
        type=int,
        nargs="+",
        metavar="N",
        help="numbers of processes; default 1 and 2, or 1, 2, 4, ... up to all GPUs",
    )
    parser.add_argument(
        "--batch-size", type=int, help="clips of each process; default the config's"
    )
    parser.add_argument(
        "--shape",
        type=int,
        nargs=4,
        required=True,
        metavar="N",
        help="one clip: 3 T H W for a 3D recognizer, T 3 H W for a 2D one",
    )
    parser.add_argument("--steps", type=int, help="steps a turn")
    parser.add_argument("--rounds", type=int, help="turns of each number")
    parser.add_argument("--threads", type=int, help="threads of each process")
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], help="default: cuda where there is one"
    )
    parser.add_argument("--out", type=Path, default=Path("work_dirs/scaling"))
    add_cfg_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print a table, and write ``scaling.json`` (and a plot).

    Args:
        argv (Sequence[str] | None): Arguments; default those of the process.
    """
    args = parse_args(argv)
    with user_errors():
        register()
        import torch

        from polynl_mm.analysis.cost.scaling import (
            format_table,
            gradient_bytes,
            measure_scaling,
            plot,
            read_setting,
            summarize,
        )
        from polynl_mm.recognizers.configs import load_config

        written = args.out / "scaling.json"
        expect_outputs(
            {f"the {written.name} of --out": written},
            {"--out": args.out},
            {"config": args.config},
        )
        require_mmaction2()
        cfg = load_config(args.config, args.cfg_options)
        setting = read_setting(cfg, args)
        rows = summarize(measure_scaling(cfg, setting))
        gradients = gradient_bytes(cfg)
        print(format_table(rows))
        print(f"Gradients averaged in each step: {gradients / 1e6:.1f} MB")
        write_json(
            written,
            {
                "config": args.config,
                "setting": asdict(setting),
                "cores": len(os.sched_getaffinity(0))
                if hasattr(os, "sched_getaffinity")
                else os.cpu_count(),
                "torch": torch.__version__,
                "gradient_bytes": gradients,
                "results": rows,
            },
        )
        if len(rows) > 2:
            plot(rows, args.out / "scaling.png")
