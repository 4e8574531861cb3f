"""Print the whole config, and the plugins that it puts into the model, with cost."""

import argparse

from polynl_mm import register
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
        "--shape",
        type=int,
        nargs=4,
        metavar="N",
        help="one view: 3 T H W for a 3D recognizer, T 3 H W for a 2D one (default: "
        "what the config tests with)",
    )
    parser.add_argument(
        "--plugins-only", action="store_true", help="leave the config itself out"
    )
    add_cfg_options(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Print.

    Args:
        argv (list[str] | None): The command line; default that of the process.
    """
    args = parse_args(argv)
    with user_errors():
        register()
        from polynl_mm.commands.printing_config import run

        run(args)
