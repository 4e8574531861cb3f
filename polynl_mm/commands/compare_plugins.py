"""What each plugin would cost in a config's network, before any is trained."""

import argparse
from pathlib import Path

from polynl_mm import register
from polynl_mm.analysis.cost.choice_setting import EXAMPLE, Setting
from polynl_mm.recognizers.command_line import CfgOptions, add_cfg_options
from polynl_mm.user_errors import user_errors


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv (list[str] | None): The arguments; default those of the process.

    Returns:
        argparse.Namespace: One attribute per option.
    """
    default = Setting(())
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="config file, or mmaction::recognition/...")
    parser.add_argument(
        "--plugins",
        nargs="+",
        required=True,
        metavar="PLUGIN",
        help=f"types, with arguments where they need some: {EXAMPLE}",
    )
    parser.add_argument(
        "--shape",
        type=int,
        nargs=4,
        required=True,
        metavar="N",
        help="one clip: 3 T H W for a 3D recognizer, T 3 H W for a 2D one",
    )
    parser.add_argument(
        "--layout",
        nargs="+",
        action=CfgOptions,
        default={},
        metavar="KEY=VALUE",
        help="where the plugins go, as in a plugins entry, such as blocks=last "
        '"stages=(False,True,True,False)"; default as in the config, else every other '
        "block of stages 2 and 3",
    )
    parser.add_argument(
        "--memory-budget",
        metavar="SIZE",
        help="such as 16GB: tell the largest batch and the longest clip within it",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="find these two by training steps with them and with the next ones",
    )
    parser.add_argument(
        "--batch-size", type=int, default=default.batch, help="clips of the timed step"
    )
    parser.add_argument(
        "--rounds", type=int, default=default.rounds, help="turns of each choice"
    )
    parser.add_argument("--threads", type=int, help="default: as many as torch takes")
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], help="default: what is there"
    )
    parser.add_argument("--out", type=Path, default=Path("work_dirs/compare_plugins"))
    add_cfg_options(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Compare, print the table, and write CSV, picture and configs.

    Args:
        argv (list[str] | None): The command line; default that of the process.
    """
    args = parse_args(argv)
    with user_errors():
        register()
        from polynl_mm.commands.comparing_plugins import run

        run(args)
