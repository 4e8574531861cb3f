"""Reporting on trainings once the command line is read."""

import argparse
from importlib.util import find_spec

from polynl_mm.analysis.report.recorded_runs import measure_costs, read_run
from polynl_mm.atomic_files import expect_outputs
from polynl_mm.commands.looked_at import draw_looks
from polynl_mm.stack import require_mmaction2
from polynl_mm.text_files import read_class_names
from polynl_mm.user_errors import UserError


def run(args: argparse.Namespace) -> None:
    """Write the page.

    Args:
        args (argparse.Namespace): The command line of the tool.
    """
    if find_spec("bokeh") is None:
        raise UserError(
            "Reports need Bokeh, which is not installed: pip install -e "
            '".[report]", or pip install "bokeh>=3.7".'
        )
    expect_outputs({"--out": args.out}, inputs={"--labels": args.labels})
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
        read_run(folder, title) for folder, title in zip(args.runs, titles, strict=True)
    ]
    measure_costs(runs, args.rounds)
    write_report(runs, args.out, args.title, labels, args.confused, draw_looks)
    for run in runs:
        for note in run.notes:
            print(f"{run.title}: {note}")
    print(f"The report of {len(runs)} trainings is {args.out}.")
