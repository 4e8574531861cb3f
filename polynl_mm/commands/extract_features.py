"""Features over time: ``tools/extract_features.py CONFIG CHECKPOINT LIST ...``."""

import argparse

from polynl_mm import register
from polynl_mm.number_options import seconds
from polynl_mm.recognizers.command_line import add_config_options
from polynl_mm.stack import LAUNCHERS
from polynl_mm.user_errors import user_errors


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv (list[str] | None): The arguments; default those of the process.

    Returns:
        argparse.Namespace: One attribute per option.
    """
    parser = argparse.ArgumentParser(
        description="Write the features of the windows of many videos."
    )
    parser.add_argument("config", help="config file, or mmaction::recognition/...")
    parser.add_argument("checkpoint", help="checkpoint file or address")
    parser.add_argument(
        "list", metavar="LIST", help="annotation list: a video on each line"
    )
    parser.add_argument(
        "--window",
        type=seconds,
        required=True,
        metavar="SECONDS",
        help="how much of a video is looked at together",
    )
    parser.add_argument(
        "--step",
        type=seconds,
        metavar="SECONDS",
        help="from one window to the next; default the window: they do not overlap",
    )
    parser.add_argument(
        "--out-dir",
        metavar="DIR",
        default="work_dirs/features",
        help="where NAME.npy and NAME.json go (default %(default)s)",
    )
    parser.add_argument(
        "--data-prefix", metavar="DIR", help="the videos' folder; default the list's"
    )
    parser.add_argument(
        "--delimiter",
        help="between path and label; default what it is in the first line",
    )
    parser.add_argument(
        "--module",
        metavar="PATH",
        help="a module of the model, such as backbone.layer3, whose output is averaged "
        "over space and time; default what the classification layer receives",
    )
    parser.add_argument(
        "--scores", action="store_true", help="write NAME_scores.npy, too"
    )
    parser.add_argument("--device", help="cpu, cuda:0, ...; default what is there")
    parser.add_argument("--launcher", choices=LAUNCHERS, default="none")
    add_config_options(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Extract features.

    Args:
        argv (list[str] | None): The command line; default that of the process.

    Returns:
        int: 0, or 1 if a video could not be read.
    """
    args = parse_args(argv)
    with user_errors():
        register()
        from polynl_mm.commands.extracting_features import run

        return run(args)
