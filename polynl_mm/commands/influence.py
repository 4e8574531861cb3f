"""Show where a block looks: ``influence.py CONFIG CHECKPOINT VIDEO``."""

import argparse

from polynl_mm import register
from polynl_mm.commands.clip_options import add_clip_options
from polynl_mm.user_errors import user_errors


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv (list[str] | None): The arguments; default those of the process.

    Returns:
        argparse.Namespace: One attribute per option.
    """
    parser = argparse.ArgumentParser(
        description="Draw, over a video's frames, how much each position contributes "
        "to a block's update of one position: NAME_influence.png, .mp4 and .npz."
    )
    add_clip_options(parser)
    parser.add_argument(
        "--plugin", metavar="PATH", help="the block's module path (default: the last)"
    )
    parser.add_argument(
        "--at",
        metavar="X,Y,T",
        help="the position that is updated: pixels and seconds of the video (default: "
        "that of the largest update)",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Draw it.

    Args:
        argv (list[str] | None): The command line; default that of the process.
    """
    args = parse_args(argv)
    with user_errors():
        register()
        from polynl_mm.commands.drawing_influence import run

        run(args)
