"""Compare each schedule with what it replaces, in time and memory (CPU, float32)."""

import argparse

from polynl_mm import register
from polynl_mm.recognizers.command_line import check_counts
from polynl_mm.user_errors import user_errors


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv (list[str] | None): The arguments; default those of the process.

    Returns:
        argparse.Namespace: One attribute per option.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=argparse.SUPPRESS,
        help="of torch (default: as many as it takes)",
    )
    parser.add_argument(
        "--repeats", type=int, default=7, help="how often each is timed, in turns"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Measure and print Markdown tables.

    Args:
        argv (list[str] | None): The command line; default that of the process.
    """
    args = parse_args(argv)
    with user_errors():
        register()
        import torch

        from polynl_mm.analysis.cost.compare import (
            compare_forward,
            compare_training,
            measure_quadratic_modes,
        )

        check_counts(args, ("threads", "repeats"))
        if "threads" in args:
            torch.set_num_threads(args.threads)
        for table in (
            compare_forward(args.repeats),
            compare_training(args.repeats),
            measure_quadratic_modes(),
        ):
            print(f"{table}\n", flush=True)
