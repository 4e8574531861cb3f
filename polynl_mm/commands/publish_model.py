"""Publish a checkpoint: ``python tools/deployment/publish_model.py SRC DST.pth``."""

import argparse

from polynl_mm import register
from polynl_mm.stack import TRUST_OPTION
from polynl_mm.user_errors import user_errors


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv (list[str] | None): The arguments; default those of the process.

    Returns:
        argparse.Namespace: One attribute per option.
    """
    parser = argparse.ArgumentParser(
        description="Keep a checkpoint's weights and meta, and name it by its hash."
    )
    parser.add_argument("source", help="checkpoint of a training")
    parser.add_argument("target", help="NAME.pth becomes NAME_YYYYMMDD-HASH.pth")
    parser.add_argument(
        "--drop-config",
        action="store_true",
        help="leave out the config's text, which names the paths of its data",
    )
    parser.add_argument(
        TRUST_OPTION,
        action="store_true",
        help="load the checkpoint without the safety check: it may then run any code",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Publish.

    Args:
        argv (list[str] | None): The command line; default that of the process.
    """
    args = parse_args(argv)
    with user_errors():
        register()
        from polynl_mm.deployment.publish import publish
        from polynl_mm.stack.safe_checkpoints import trust_checkpoints

        if args.trust_checkpoint:
            trust_checkpoints()
        written, left_out = publish(
            args.source, args.target, with_config=not args.drop_config
        )
        if left_out:
            print(f"Left out: {', '.join(left_out)}")
        print(written)
