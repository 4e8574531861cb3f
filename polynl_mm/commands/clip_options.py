"""The options of the tools that draw over a video; read before torch."""

import argparse

from polynl_mm.recognizers.command_line import add_config_options


def add_clip_options(parser: argparse.ArgumentParser) -> None:
    """Add what the tools that draw over a video have in common.

    Args:
        parser (argparse.ArgumentParser): The tool's parser.
    """
    parser.add_argument("config", help="config file, or mmaction::recognition/...")
    parser.add_argument("checkpoint", help="checkpoint file or address")
    parser.add_argument("video", help="video file")
    parser.add_argument(
        "--class",
        dest="label",
        metavar="NAME",
        help="a class, by its name (with --labels) or number; default the best",
    )
    parser.add_argument("--labels", metavar="FILE", help="class names, one per line")
    parser.add_argument("--device", help="cpu, cuda:0, ...; default what is there")
    parser.add_argument("--out", metavar="DIR", default=".", help="where files go")
    add_config_options(parser)
