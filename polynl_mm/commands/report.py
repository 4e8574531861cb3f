"""One self-contained page on any set of trainings: ``report.py WORK_DIR ...``."""

import argparse

from polynl_mm import register
from polynl_mm.user_errors import user_errors


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv (list[str] | None): The arguments; default those of the process.

    Returns:
        argparse.Namespace: One attribute per option.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "runs", nargs="+", metavar="WORK_DIR", help="work dirs of tools/train.py"
    )
    parser.add_argument(
        "-o",
        "--out",
        default="report.html",
        metavar="FILE",
        help="the page (default report.html)",
    )
    parser.add_argument(
        "--legend", nargs="+", metavar="NAME", help="what to call each training"
    )
    parser.add_argument("--title", default="Trainings", help="what to call the page")
    parser.add_argument(
        "--labels", "--label-file", metavar="FILE", help="class names, one per line"
    )
    parser.add_argument(
        "--confused",
        type=int,
        default=6,
        metavar="N",
        help="clips of each run, at most",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=5,
        metavar="N",
        help="how many times the view of each model is timed, on the CPU; 0 for not",
    )
    args = parser.parse_args(argv)
    if args.legend and len(args.legend) != len(args.runs):
        parser.error(
            f"--legend gives {len(args.legend)} names for {len(args.runs)} trainings"
        )
    return args


def main(argv: list[str] | None = None) -> None:
    """Write the page.

    Args:
        argv (list[str] | None): The command line; default that of the process.
    """
    args = parse_args(argv)
    with user_errors():
        register()
        from polynl_mm.commands.reporting import run

        run(args)
