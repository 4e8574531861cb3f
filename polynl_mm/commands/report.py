"""One self-contained page on any set of trainings: ``report.py WORK_DIR ...``."""

import argparse
from importlib.util import find_spec

from polynl_mm.analysis.report.recorded_runs import measure_costs, read_run
from polynl_mm.atomic_files import expect_outputs
from polynl_mm.stack import require_mmaction2
from polynl_mm.text_files import read_class_names
from polynl_mm.user_errors import UserError, user_errors


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
        if find_spec("bokeh") is None:
            raise UserError(
                "Reports need Bokeh, which is not installed: pip install -e "
                '".[report]", or pip install "bokeh>=3.7".'
            )
        expect_outputs({"--out": args.out})
        if not args.out.lower().endswith((".html", ".htm")):
            raise UserError(f"--out takes an .html file, not {args.out}.")
        for name in ("confused", "rounds"):
            if getattr(args, name) < 0:
                value = getattr(args, name)
                raise UserError(f"--{name} is a whole number from 0, not {value}.")
        require_mmaction2()
        from polynl_mm.analysis.report.page import write_report

        labels = read_class_names(args.labels) if args.labels else None
        titles = args.legend or [None] * len(args.runs)
        runs = [
            read_run(folder, title)
            for folder, title in zip(args.runs, titles, strict=True)
        ]
        measure_costs(runs, args.rounds)
        write_report(runs, args.out, args.title, labels, args.confused)
        for run in runs:
            for note in run.notes:
                print(f"{run.title}: {note}")
        print(f"The report of {len(runs)} trainings is {args.out}.")
