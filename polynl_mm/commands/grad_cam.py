"""Draw Grad-CAM of any module: ``grad_cam.py CONFIG CHECKPOINT VIDEO --module ...``."""

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
        description="Draw, over a video's frames, where the features of a module speak "
        "for a class (Grad-CAM): NAME_grad_cam.png, .mp4 and .npz."
    )
    add_clip_options(parser)
    parser.add_argument(
        "--module",
        required=True,
        metavar="PATH",
        help="module path, such as backbone.layer4 or backbone.fast_path.layer4",
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
        from polynl_mm.commands.drawing_grad_cam import run

        run(args)
