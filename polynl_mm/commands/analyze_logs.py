"""Curves and speed of trainings: ``analyze_logs.py plot_curve WORK_DIR ...``."""

import argparse
import statistics

from polynl_mm.atomic_files import expect_outputs
from polynl_mm.user_errors import UserError, user_errors


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv (list[str] | None): The arguments; default those of the process.

    Returns:
        argparse.Namespace: One attribute per option.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    tasks = parser.add_subparsers(dest="task", required=True)
    plot = tasks.add_parser("plot_curve", help="draw loss, accuracy, learning rate")
    time = tasks.add_parser("cal_train_time", help="print the time of an iteration")
    for task in (plot, time):
        task.add_argument(
            "runs",
            nargs="+",
            metavar="RUN",
            help="work dirs of tools/train.py, or the scalars.json in them",
        )
        task.add_argument(
            "--legend", nargs="+", metavar="NAME", help="what to call each training"
        )
    plot.add_argument(
        "--keys",
        nargs="+",
        metavar="KEY",
        help="what to draw, such as loss acc/top1 lr grad_norm; one panel for each "
        "(default loss, acc/top1 and lr, as far as recorded)",
    )
    plot.add_argument("--over", choices=["epoch", "iter"], default="epoch")
    plot.add_argument("--title", help="what to write above the curves")
    plot.add_argument(
        "--out",
        default="curves.png",
        metavar="FILE",
        help="the picture, .png, .pdf or .svg (default curves.png)",
    )
    args = parser.parse_args(argv)
    if args.legend and len(args.legend) != len(args.runs):
        parser.error(
            f"--legend gives {len(args.legend)} names for {len(args.runs)} trainings"
        )
    return args


def print_times(logs) -> None:
    """Print how long the iterations of trainings took.

    Args:
        logs (list[TrainingLog]): The trainings.

    Raises:
        UserError: If a training recorded no times.
    """
    from polynl_mm.analysis.accuracy.training_curves import seconds_by_epoch

    for log in logs:
        seconds = seconds_by_epoch(log)
        if not seconds:
            raise UserError(f"{log.title} has recorded no time of an epoch.")
        slowest, fastest = max(seconds, key=seconds.get), min(seconds, key=seconds.get)
        spread = statistics.pstdev(seconds.values())
        print(
            f"{log.title}: {statistics.mean(seconds.values()):.4f} s for an iteration, "
            f"{spread:.4f} standard deviation over {len(seconds)} epochs, slowest "
            f"epoch {slowest} ({seconds[slowest]:.4f} s), fastest {fastest} "
            f"({seconds[fastest]:.4f} s)"
        )


def main(argv: list[str] | None = None) -> None:
    """Draw curves, or print times.

    Args:
        argv (list[str] | None): The command line; default that of the process.
    """
    args = parse_args(argv)
    with user_errors():
        from polynl_mm.analysis.accuracy.training_curves import (
            draw_curves,
            find_keys,
            read_training,
        )

        if args.task == "plot_curve":
            expect_outputs({"--out": args.out}, inputs={"RUN": args.runs})
        titles = args.legend or args.runs
        logs = [
            read_training(run, title)
            for run, title in zip(args.runs, titles, strict=True)
        ]
        if args.task == "cal_train_time":
            print_times(logs)
            return
        if not args.out.lower().endswith((".png", ".pdf", ".svg")):
            raise UserError(f"--out takes a .png, .pdf or .svg file, not {args.out}.")
        keys = find_keys(logs, args.keys)
        draw_curves(logs, keys, args.out, args.over, args.title)
        print(f"The curves of {', '.join(keys)} are in {args.out}.")
