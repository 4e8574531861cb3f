"""Accuracy of each class of a test: ``per_class_accuracy.py RESULTS.pkl ...``."""

import argparse
import csv
from pathlib import Path

from polynl_mm import register
from polynl_mm.atomic_files import (
    expect_outputs,
    renamed_when_complete,
    write_json,
)
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
    parser.add_argument("results", help="predictions, from tools/test.py --dump")
    parser.add_argument(
        "--labels", "--label-file", metavar="FILE", help="class names, one per line"
    )
    parser.add_argument(
        "--worst",
        type=int,
        default=10,
        metavar="N",
        help="how many of the worst classes to print (default 10); -1: all",
    )
    parser.add_argument(
        "--out", metavar="FILE", help="write all classes here, .csv or .json"
    )
    return parser.parse_args(argv)


def write_table(path: str, records: list[dict], accuracies: dict) -> None:
    """Write the accuracy of every class.

    Args:
        path (str): A ``.csv`` or ``.json`` file.
        records (list[dict]): One for each class.
        accuracies (dict): Of all samples; for JSON only.

    Raises:
        UserError: If the suffix is another one.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".json":
        write_json(path, dict(**accuracies, classes=records))
    elif suffix == ".csv":
        with (
            renamed_when_complete(path) as partial,
            open(partial, "w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, fieldnames=list(records[0]))
            writer.writeheader()
            writer.writerows(records)
    else:
        raise UserError(f"--out takes a .csv or .json file, not {path}.")


def main(argv: list[str] | None = None) -> None:
    """Print the worst classes, and write all of them.

    Args:
        argv (list[str] | None): The command line; default that of the process.
    """
    args = parse_args(argv)
    with user_errors():
        register()
        from polynl_mm.analysis.accuracy.accuracies import (
            class_accuracies,
            class_records,
            format_accuracies,
            overall_accuracies,
        )
        from polynl_mm.analysis.accuracy.dumped_results import read_results

        expect_outputs(
            {"--out": args.out},
            inputs={"results": args.results, "--labels": args.labels},
        )
        require_mmaction2()
        results = read_results(args.results)
        labels = read_class_names(args.labels) if args.labels else None
        rows = class_accuracies(results, labels)
        accuracies = overall_accuracies(results)
        if args.out:
            write_table(args.out, class_records(rows), accuracies)
        print(f"{len(results.labels)} samples: {format_accuracies(accuracies)}")
        seen = [row for row in rows if row.samples]
        absent = [row for row in rows if not row.samples]
        shown = seen if args.worst < 0 else seen[: args.worst]
        width = max((len(row.name) for row in shown), default=0)
        if shown:
            print("Accuracy, correct / samples, class, what it is mostly taken for:")
        for row in shown:
            print(
                f"{row.accuracy:8.1%}  {row.correct:5} / {row.samples:<5} "
                f"{row.name:<{width}}  {row.taken_for}".rstrip()
            )
        if absent:
            print(f"{len(absent)} of {len(rows)} classes have no samples.")
        if any(row.predicted for row in absent):
            mean = sum(row.accuracy for row in seen) / len(seen)
            print(
                "Some of them are predicted, and count as 0 in the mean class accuracy "
                f"(as in MMAction2); over those with samples it is {mean:.2%}."
            )
        if args.out:
            print(f"All classes are in {args.out}.")
