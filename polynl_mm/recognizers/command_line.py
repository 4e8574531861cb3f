"""The options that the tools have in common; read before torch is imported."""

import argparse
import os
from collections.abc import Sequence

from polynl_mm.stack import LAUNCHERS, TRUST_OPTION
from polynl_mm.user_errors import UserError

# Frames of a part of a video read in parts: enough to keep a processor busy, few
# enough for any memory.
PART_FRAMES = 64


class CfgOptions(argparse.Action):
    """``--cfg-options key=value ...``, saying what is wrong with a bad one."""

    def __call__(self, parser, namespace, values, option_string=None):
        """Parse the pairs into a dict of the namespace, as MMEngine does."""
        from mmengine.config import DictAction  # only where the option is given

        for value in values or []:
            if "=" not in value or value.startswith("="):
                raise argparse.ArgumentError(
                    self, f"expected key=value pairs, but got {value!r}"
                )
        parse = DictAction(self.option_strings, self.dest)
        try:
            parse(parser, namespace, values, option_string)
        except AssertionError as error:
            raise argparse.ArgumentError(
                self, f"{error} (quote lists and tuples)"
            ) from error


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add what every tool that takes a config has.

    Args:
        parser (argparse.ArgumentParser): The tool's parser.
    """
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=CfgOptions,
        metavar="KEY=VALUE",
        help='change the config, such as test_dataloader.batch_size=8 or a="[1,2]"',
    )


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add what every tool that takes a config and a checkpoint has.

    Args:
        parser (argparse.ArgumentParser): The tool's parser.
    """
    add_cfg_options(parser)
    parser.add_argument(
        TRUST_OPTION,
        action="store_true",
        help="load checkpoints without the safety check: they may then run any code",
    )


def check_config_options(args: argparse.Namespace) -> None:
    """Check the options of a tool that may go without a config.

    Args:
        args (argparse.Namespace): With ``config``, :func:`add_config_options`.

    Raises:
        UserError: If there are changes of a config but none to change.
    """
    if args.cfg_options and not args.config:
        raise UserError("--cfg-options changes the config of --config; give that, too.")


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add what training and testing have: launching, and the model's schedules.

    Args:
        parser (argparse.ArgumentParser): The tool's parser.
    """
    add_config_options(parser)
    parser.add_argument("--launcher", choices=LAUNCHERS, default="none")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0)
    parser.add_argument(
        "--clip-parallel",
        type=int,
        metavar="RANKS",
        help="share the frames of each clip over so many processes; default: the "
        "config's clip_parallel, else 1",
    )
    parser.add_argument(
        "--accelerate-non-local",
        action="store_true",
        help="run the model's own non-local blocks on the faster schedules",
    )


def parse_run(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None
) -> argparse.Namespace:
    """Parse the command line of a run, and let torch know the local rank.

    Args:
        parser (argparse.ArgumentParser): With :func:`add_run_options`.
        argv (Sequence[str] | None): The arguments; default those of the process.

    Returns:
        argparse.Namespace: One attribute per option.
    """
    args = parser.parse_args(argv)
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    return args


def check_counts(args: argparse.Namespace, names: Sequence[str]) -> None:
    """Check options that count something, of which there must be one at least.

    Args:
        args (argparse.Namespace): The command line.
        names (Sequence[str]): Attributes: numbers, lists of them, None, or left out.

    Raises:
        UserError: If a number is less than 1.
    """
    for name in names:
        given = getattr(args, name, None)
        for value in given if isinstance(given, list) else [given]:
            if value is not None and value < 1:
                option = name.replace("_", "-")
                raise UserError(f"--{option} is a whole number from 1, not {value}.")
