"""Train a recognizer: ``python tools/train.py CONFIG [--work-dir DIR] ...``."""

import argparse

from polynl_mm import register
from polynl_mm.recognizers.command_line import add_run_options, parse_run
from polynl_mm.user_errors import user_errors


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv (list[str] | None): The arguments; default those of the process.

    Returns:
        argparse.Namespace: One attribute per option.
    """
    parser = argparse.ArgumentParser(description="Train a recognizer.")
    parser.add_argument("config", help="config file, or mmaction::recognition/...")
    parser.add_argument("--work-dir", help="where logs and checkpoints go")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="go on from this checkpoint, or from the last one in the work dir",
    )
    parser.add_argument(
        "--amp",
        action="store_true",
        help="train in mixed precision (on CPUs: bfloat16)",
    )
    parser.add_argument(
        "--no-validate", action="store_true", help="do not evaluate while training"
    )
    parser.add_argument(
        "--auto-scale-lr",
        action="store_true",
        help="scale the learning rate by batch size, as the config defines",
    )
    parser.add_argument(
        "--seed",
        type=int,
        help="random seed; wins over the config's, makes --resume exact",
    )
    parser.add_argument(
        "--diff-rank-seed",
        action="store_true",
        help="give the processes seeds of their own from the start",
    )
    parser.add_argument(
        "--deterministic",
        action="store_true",
        help="use deterministic algorithms only (slower)",
    )
    add_run_options(parser)
    return parse_run(parser, argv)


def main(argv: list[str] | None = None) -> None:
    """Train.

    Args:
        argv (list[str] | None): The command line; default that of the process.
    """
    args = parse_args(argv)
    with user_errors():
        register()
        from polynl_mm.commands.training import train

        train(args)
