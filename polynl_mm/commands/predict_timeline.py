"""Scores over time: ``tools/predict_timeline.py CONFIG CHECKPOINT VIDEO ...``."""

import argparse

from polynl_mm import register
from polynl_mm.number_options import seconds
from polynl_mm.recognizers.command_line import add_config_options
from polynl_mm.user_errors import user_errors


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv (list[str] | None): The arguments; default those of the process.

    Returns:
        argparse.Namespace: One attribute per option.
    """
    parser = argparse.ArgumentParser(
        description="Predict the classes of a long video over time."
    )
    parser.add_argument("config", help="config file, or mmaction::recognition/...")
    parser.add_argument("checkpoint", help="checkpoint file or address")
    parser.add_argument("video", metavar="VIDEO", help="a video file")
    parser.add_argument(
        "--window",
        type=seconds,
        required=True,
        metavar="SECONDS",
        help="how much of the video is looked at together",
    )
    parser.add_argument(
        "--step",
        type=seconds,
        metavar="SECONDS",
        help="from one window to the next; default half a window",
    )
    parser.add_argument(
        "--out-dir",
        metavar="DIR",
        default="work_dirs/timelines",
        help="where NAME_timeline.json, .csv and .png go (default %(default)s)",
    )
    parser.add_argument(
        "--annotated-video",
        metavar="OUT.mp4",
        help="write a copy of the video with the classes on it, too",
    )
    parser.add_argument(
        "--top-k", type=int, default=3, help="how many classes on it (default 3)"
    )
    parser.add_argument("--labels", metavar="FILE", help="class names, one per line")
    parser.add_argument("--device", help="cpu, cuda:0, ...; default what is there")
    add_config_options(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Predict over time.

    Args:
        argv (list[str] | None): The command line; default that of the process.
    """
    args = parse_args(argv)
    with user_errors():
        register()
        from polynl_mm.commands.predicting_timelines import run

        run(args)
