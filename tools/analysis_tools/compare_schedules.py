"""Print how many times faster each schedule is than what it replaces (CPU, float32)."""

import argparse

import torch

from polynl_mm.analysis.compare import compare_all


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(compare_all(args.repeats))


if __name__ == "__main__":
    main()
