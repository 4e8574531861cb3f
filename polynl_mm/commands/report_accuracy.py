"""Fuse the scores of several tests: ``report_accuracy.py --preds A.pkl B.pkl ...``."""

import argparse
import pickle
from pathlib import Path

from polynl_mm import register
from polynl_mm.atomic_files import (
    expect_outputs,
    renamed_when_complete,
    write_json,
)
from polynl_mm.number_options import finite
from polynl_mm.stack import require_mmaction2
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
        "--preds",
        nargs="+",
        required=True,
        metavar="RESULTS.pkl",
        help="predictions of the same samples, from tools/test.py --dump",
    )
    parser.add_argument(
        "--coefficients",
        nargs="+",
        type=finite,
        metavar="WEIGHT",
        help="the weight of each file (default 1 for each)",
    )
    parser.add_argument(
        "--apply-softmax",
        action="store_true",
        help="for scores that are not probabilities: turn them into such first",
    )
    parser.add_argument(
        "--dump", metavar="FILE.pkl", help="write the fused predictions here"
    )
    parser.add_argument("--metrics", metavar="FILE.json", help="write accuracies here")
    return parser.parse_args(argv)


def dump_results(results, path: str) -> None:
    """Write predictions as ``tools/test.py --dump`` does.

    Args:
        results (DumpedResults): What to write.
        path (str): A ``.pkl`` file.
    """
    import torch

    samples = []
    for row, (score, label) in enumerate(
        zip(results.scores, results.labels, strict=True)
    ):
        sample = dict(
            pred_score=torch.from_numpy(score).float(),
            pred_label=torch.tensor([int(score.argmax())]),
            gt_label=torch.tensor([int(label)]),
        )
        if results.names:
            sample["filename"] = results.names[row]
        samples.append(sample)
    with renamed_when_complete(path) as partial:
        partial.write_bytes(pickle.dumps(samples))


def main(argv: list[str] | None = None) -> None:
    """Print the accuracies of each test and of all together.

    Args:
        argv (list[str] | None): The command line; default that of the process.
    """
    args = parse_args(argv)
    with user_errors():
        register()
        from polynl_mm.analysis.accuracy.accuracies import (
            format_accuracies,
            fuse,
            overall_accuracies,
        )
        from polynl_mm.analysis.accuracy.dumped_results import read_results

        expect_outputs(
            {"--dump": args.dump, "--metrics": args.metrics},
            inputs={"--preds": args.preds},
        )
        require_mmaction2()
        if args.dump and Path(args.dump).suffix not in (".pkl", ".pickle"):
            raise UserError(f"--dump takes a .pkl file, not {args.dump}.")
        weights = args.coefficients or [1.0] * len(args.preds)
        if len(weights) != len(args.preds):
            raise UserError(
                f"--preds gives {len(args.preds)} files, --coefficients {len(weights)} "
                "weights; as many are needed."
            )
        dumps = [read_results(path) for path in args.preds]
        fused = fuse(dumps, weights, args.apply_softmax)
        metrics = {}
        for dump, weight in zip(dumps, weights, strict=True):
            metrics[dump.path] = overall_accuracies(dump)
            print(f"{dump.path} (weight {weight:g}): ", end="")
            print(format_accuracies(metrics[dump.path]))
        metrics["fused"] = overall_accuracies(fused)
        print(f"fused, {len(fused.labels)} samples: ", end="")
        print(format_accuracies(metrics["fused"]))
        if len(dumps) > 1 and not all(dump.names for dump in dumps):
            print(
                "Some files do not name their samples: they were matched by position, "
                "and the labels agree at each."
            )
        if args.dump:
            dump_results(fused, args.dump)
        if args.metrics:
            write_json(args.metrics, metrics)
