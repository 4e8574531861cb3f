"""Time and memory of the plugins and their peers: JSON, CSV, two plots, a table."""

import argparse
from pathlib import Path

from polynl_mm import register
from polynl_mm.analysis.cost.setting import Setting
from polynl_mm.atomic_files import expect_outputs
from polynl_mm.recognizers.command_line import check_counts
from polynl_mm.user_errors import UserError, did_you_mean, user_errors

COUNTS = ("channels", "clip_lengths", "size", "batch", "repeats", "threads")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv (list[str] | None): The arguments; default those of the process.

    Returns:
        argparse.Namespace: One attribute per option.
    """
    default = Setting()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("work_dirs/benchmark"))
    parser.add_argument("--channels", type=int, default=default.channels)
    parser.add_argument(
        "--clip-lengths", type=int, nargs="+", default=list(default.clip_lengths)
    )
    parser.add_argument("--size", type=int, default=default.size, help="H and W")
    parser.add_argument("--batch", type=int, default=default.batch)
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16", "float16"], default=default.dtype
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default=default.device)
    parser.add_argument("--repeats", type=int, default=default.repeats)
    parser.add_argument(
        "--compile",
        action="store_true",
        help="measure the plugins through torch.compile with inductor, after checking "
        "that they then give the same outputs",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=argparse.SUPPRESS,
        help="of torch (default: as many as it takes)",
    )
    parser.add_argument(
        "--subjects",
        nargs="+",
        default=argparse.SUPPRESS,
        metavar="NAME",
        help="what to measure (default: all)",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Measure, print the table, and write the files.

    Args:
        argv (list[str] | None): The command line; default that of the process.
    """
    args = parse_args(argv)
    with user_errors():
        register()
        import torch

        from polynl_mm.analysis.cost.benchmark import (
            SUBJECTS,
            benchmark,
            write_results,
        )
        from polynl_mm.analysis.cost.sweep_results import format_table

        expect_outputs(folders={"--out": args.out})
        check_counts(args, COUNTS)
        subjects = getattr(args, "subjects", list(SUBJECTS))
        for name in subjects:
            if name not in SUBJECTS:
                hint = did_you_mean(name, SUBJECTS) or f"; known: {', '.join(SUBJECTS)}"
                raise UserError(f"--subjects: there is no {name!r}{hint}")
        if args.device == "cuda" and not torch.cuda.is_available():
            raise UserError("--device cuda: torch sees no CUDA GPU on this machine.")
        if "threads" in args:
            torch.set_num_threads(args.threads)
        setting = Setting(
            channels=args.channels,
            clip_lengths=tuple(args.clip_lengths),
            size=args.size,
            batch=args.batch,
            dtype=args.dtype,
            device=args.device,
            repeats=args.repeats,
            compiled=args.compile,
        )
        points = benchmark(
            setting,
            subjects,
            save=lambda points: write_results(points, setting, args.out),
        )
        print(format_table(points))
        print(f"In {args.out}: benchmark.json, benchmark.csv, time.png, memory.png")
