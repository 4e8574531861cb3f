"""Evaluate a checkpoint: ``python tools/test.py CONFIG CHECKPOINT ...``."""

import argparse

from polynl_mm import register
from polynl_mm.number_options import finite
from polynl_mm.recognizers.command_line import add_run_options, parse_run
from polynl_mm.user_errors import user_errors


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv (list[str] | None): The arguments; default those of the process.

    Returns:
        argparse.Namespace: One attribute per option.
    """
    parser = argparse.ArgumentParser(description="Evaluate a checkpoint.")
    parser.add_argument("config", help="config file, or mmaction::recognition/...")
    parser.add_argument("checkpoint", help="checkpoint file or address")
    parser.add_argument("--work-dir", help="where the log goes")
    parser.add_argument("--metrics", metavar="FILE.json", help="write the metrics here")
    parser.add_argument(
        "--dump", metavar="FILE.pkl", help="write the predictions here, as a pickle"
    )
    parser.add_argument(
        "--max-testing-views",
        type=int,
        metavar="N",
        help="views (frames of a 2D recognizer) that go through the network at once; "
        "default: test_cfg's, else 4, or one of each video of a batch; 0: all",
    )
    parser.add_argument(
        "--show-dir",
        metavar="DIR",
        help="write a picture of each sample's frames and predictions here",
    )
    parser.add_argument(
        "--show", action="store_true", help="show these pictures in windows"
    )
    parser.add_argument(
        "--interval",
        type=int,
        metavar="N",
        help="write or show every n-th sample only",
    )
    parser.add_argument(
        "--wait-time",
        type=finite,
        metavar="SECONDS",
        help="how long a window stays; default 2, 0 until it is closed",
    )
    add_run_options(parser)
    return parse_run(parser, argv)


def main(argv: list[str] | None = None) -> None:
    """Evaluate.

    Args:
        argv (list[str] | None): The command line; default that of the process.
    """
    args = parse_args(argv)
    with user_errors():
        register()
        from polynl_mm.commands.testing import test

        test(args)
