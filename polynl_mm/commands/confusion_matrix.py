"""Draw the confusion matrix of a test: ``confusion_matrix.py RESULTS.pkl ...``."""

import argparse

from polynl_mm import register
from polynl_mm.atomic_files import expect_outputs, write_json
from polynl_mm.stack import require_mmaction2
from polynl_mm.text_files import read_class_names
from polynl_mm.user_errors import UserError, did_you_mean, user_errors


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
        "--out",
        default="confusion_matrix.png",
        metavar="FILE",
        help="the picture, .png, .pdf or .svg (default confusion_matrix.png)",
    )
    parser.add_argument(
        "--labels", "--label-file", metavar="FILE", help="class names, one per line"
    )
    parser.add_argument(
        "--normalize",
        choices=["true", "none"],
        default="true",
        help="shares of each true class (default), or numbers of samples",
    )
    parser.add_argument(
        "--target-classes",
        type=int,
        nargs="+",
        metavar="CLASS",
        help="draw these classes only, by their numbers",
    )
    parser.add_argument("--cmap", default="viridis", help="matplotlib's colour map")
    parser.add_argument("--title", help="what to write above the matrix")
    parser.add_argument(
        "--most-confused",
        type=int,
        default=10,
        metavar="N",
        help="how many pairs of classes to print (default 10)",
    )
    parser.add_argument("--json", metavar="FILE", help="write the counts here")
    return parser.parse_args(argv)


def check_options(args: argparse.Namespace, num_classes: int) -> None:
    """Check what argparse cannot.

    Args:
        args (argparse.Namespace): From :func:`parse_args`.
        num_classes (int): How many classes the results have.

    Raises:
        UserError: If a class or a colour map does not exist, or a number is negative.
    """
    import matplotlib

    if args.cmap not in matplotlib.colormaps:
        hint = did_you_mean(args.cmap, matplotlib.colormaps)
        raise UserError(f"--cmap: matplotlib has no {args.cmap!r}{hint}")
    if not args.out.lower().endswith((".png", ".pdf", ".svg")):
        raise UserError(f"--out takes a .png, .pdf or .svg file, not {args.out}.")
    if args.most_confused < 0:
        raise UserError(
            f"--most-confused is a whole number from 0, not {args.most_confused}."
        )
    for label in args.target_classes or []:
        if not 0 <= label < num_classes:
            raise UserError(
                f"--target-classes {label}: the results have the classes 0 to "
                f"{num_classes - 1}."
            )


def main(argv: list[str] | None = None) -> None:
    """Draw the matrix, and print what is confused most.

    Args:
        argv (list[str] | None): The command line; default that of the process.
    """
    args = parse_args(argv)
    with user_errors():
        register()
        from polynl_mm.analysis.accuracy.accuracies import (
            class_names,
            count_confusions,
            format_accuracies,
            most_confused,
            overall_accuracies,
        )
        from polynl_mm.analysis.accuracy.confusion_picture import draw_confusions
        from polynl_mm.analysis.accuracy.dumped_results import read_results

        expect_outputs(
            {"--out": args.out, "--json": args.json},
            inputs={"results": args.results, "--labels": args.labels},
        )
        require_mmaction2()
        results = read_results(args.results)
        check_options(args, results.num_classes)
        names = class_names(
            results.num_classes, read_class_names(args.labels) if args.labels else None
        )
        accuracies = overall_accuracies(results)
        matrix = count_confusions(results)
        print(f"{len(results.labels)} samples: {format_accuracies(accuracies)}")
        # Of the whole row, also where only some of its columns are shown.
        samples = matrix.sum(axis=1)
        if args.target_classes:
            samples = samples[args.target_classes]
            matrix = matrix[args.target_classes][:, args.target_classes]
            names = [names[label] for label in args.target_classes]
        pairs = most_confused(matrix, names, args.most_confused, samples)
        if pairs:
            print("Most confused (true class, taken for, how often):")
        for true, predicted, times, share in pairs:
            print(f"  {true} -> {predicted}: {times} ({share:.0%})")
        draw_confusions(
            matrix,
            names,
            args.out,
            samples,
            normalize=args.normalize == "true",
            title=args.title,
            cmap=args.cmap,
        )
        print(f"The picture is {args.out}.")
        if args.json:
            counts = dict(matrix=matrix.tolist(), samples=samples.tolist())
            write_json(args.json, dict(classes=names, **counts))
