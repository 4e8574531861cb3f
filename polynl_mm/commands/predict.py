"""Predict videos: ``python tools/predict.py CONFIG CHECKPOINT VIDEO ...``."""

import argparse

from polynl_mm import register
from polynl_mm.recognizers.command_line import PART_FRAMES, add_config_options
from polynl_mm.user_errors import user_errors


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv (list[str] | None): The arguments; default those of the process.

    Returns:
        argparse.Namespace: One attribute per option.
    """
    parser = argparse.ArgumentParser(description="Predict the classes of videos.")
    parser.add_argument("config", help="config file, or mmaction::recognition/...")
    parser.add_argument("checkpoint", help="checkpoint file or address")
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="video files")
    parser.add_argument(
        "--top-k", type=int, default=5, help="how many classes to print (default 5)"
    )
    parser.add_argument("--labels", metavar="FILE", help="class names, one per line")
    parser.add_argument("--device", help="cpu, cuda:0, ...; default what is there")
    parser.add_argument(
        "--out-dir", metavar="DIR", help="write an annotated copy of each video here"
    )
    parser.add_argument("--json", metavar="FILE", help="write the predictions here")
    parser.add_argument(
        "--whole-video",
        action="store_true",
        help="look at all frames of a video as one clip, read in parts: the exact "
        "result within bounded memory",
    )
    parser.add_argument(
        "--stride",
        type=int,
        metavar="S",
        help="of these frames, use each S-th (default 1: all)",
    )
    parser.add_argument(
        "--part-frames",
        type=int,
        metavar="F",
        help=f"frames of a part (default {PART_FRAMES}); the result does not depend on "
        "it, memory does",
    )
    add_config_options(parser)
    args = parser.parse_args(argv)
    if args.top_k < 1:
        parser.error(f"--top-k must be at least 1, not {args.top_k}")
    return args


def main(argv: list[str] | None = None) -> int:
    """Predict.

    Args:
        argv (list[str] | None): The command line; default that of the process.

    Returns:
        int: 0, or 1 if a video could not be predicted.
    """
    args = parse_args(argv)
    with user_errors():
        register()
        from polynl_mm.commands.predicting import run

        return run(args)
