"""Compare each schedule with what it replaces, in time and memory (CPU, float32)."""

import argparse

import torch

from polynl_mm.analysis.cost.compare import (
    compare_forward,
    compare_training,
    measure_quadratic_modes,
)


def main(argv: list[str] | None = None) -> None:
    """Measure and print Markdown tables.

    Args:
        argv (list[str] | None): The command line; default that of the process.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    for table in (
        compare_forward(args.repeats),
        compare_training(args.repeats),
        measure_quadratic_modes(),
    ):
        print(f"{table}\n", flush=True)
