"""Start Poly-NL from a non-local checkpoint: ``non_local_to_polynl.py SRC DST ...``."""

import argparse

from polynl_mm import register
from polynl_mm.atomic_files import expect_outputs
from polynl_mm.number_options import finite
from polynl_mm.recognizers.command_line import add_config_options, check_config_options
from polynl_mm.stack import require_mmaction2
from polynl_mm.user_errors import user_errors


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv (list[str] | None): The arguments; default those of the process.

    Returns:
        argparse.Namespace: One attribute per option.
    """
    parser = argparse.ArgumentParser(
        description="Turn a trained non-local checkpoint of MMAction2 into a starting "
        "point for Poly-NL."
    )
    parser.add_argument("source", help="checkpoint with non-local blocks")
    parser.add_argument("target", help="checkpoint to write, for load_from")
    parser.add_argument(
        "--config",
        help="the Poly-NL config that will start from it; default Poly-NL of the same "
        "inner width in the place of every non-local block",
    )
    parser.add_argument(
        "--alpha",
        type=finite,
        default=0.0,
        help="alpha of the blocks that take weights over: 0 (default) starts as the "
        "identity, 1 as the diagonal form of the non-local block",
    )
    add_config_options(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Convert.

    Args:
        argv (list[str] | None): The command line; default that of the process.
    """
    args = parse_args(argv)
    with user_errors():
        register()
        from polynl_mm.convert.non_local_to_polynl import convert, describe_plugins
        from polynl_mm.recognizers.building import build_recognizer
        from polynl_mm.recognizers.configs import load_config
        from polynl_mm.recognizers.state_dicts import read_state_dict, write_checkpoint
        from polynl_mm.stack.safe_checkpoints import trust_checkpoints

        expect_outputs(
            {"target": args.target},
            inputs={"source": args.source, "--config": args.config},
        )
        check_config_options(args)
        if args.trust_checkpoint:
            trust_checkpoints()
        model = None
        if args.config:
            require_mmaction2()
            cfg = load_config(args.config, args.cfg_options)
            model = build_recognizer(cfg, args.config)
        source = read_state_dict(args.source)
        done = convert(source, model, args.alpha)
        meta = dict(converted_from="non-local blocks")
        write_checkpoint(args.target, done.weights, meta=meta)
        for line in done.log:
            print(line)
        print(
            f"{args.target}: weights taken over by {len(done.mapped)} of "
            f"{len(done.mapped) + len(done.identities)} blocks."
        )
        if not done.mapped:
            print(
                "Warning: no block takes weights over; the file holds the source's "
                "backbone and head, and new blocks that start as the identity."
            )
        if done.identities or not args.config:
            entry = describe_plugins(done, source)
            print(f"Every block of the source has its place with dict({entry}).")
