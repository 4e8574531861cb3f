"""Draw the clips that a pipeline really yields: ``browse_dataset.py CONFIG``."""

import argparse

from polynl_mm import register
from polynl_mm.datasets import SPLITS
from polynl_mm.recognizers.command_line import add_cfg_options
from polynl_mm.user_errors import user_errors


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv (list[str] | None): The arguments; default those of the process.

    Returns:
        argparse.Namespace: One attribute per option.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="config file, or mmaction::recognition/...")
    parser.add_argument(
        "--split", choices=SPLITS, default="train", help="whose pipeline and data"
    )
    parser.add_argument(
        "--number", type=int, default=8, help="samples, spread over the data"
    )
    parser.add_argument(
        "--frames", type=int, default=8, help="frames shown of a view, at most"
    )
    parser.add_argument(
        "--views", type=int, default=3, help="views shown of a sample, at most"
    )
    parser.add_argument(
        "--out",
        default="dataset.png",
        metavar="FILE",
        help="the picture, .png, .pdf or .svg (default dataset.png)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of random crops and flips")
    add_cfg_options(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Draw.

    Args:
        argv (list[str] | None): The command line; default that of the process.
    """
    args = parse_args(argv)
    with user_errors():
        register()
        from polynl_mm.commands.browsing import run

        run(args)
