"""Convert PySlowFast weights: ``python tools/convert/pyslowfast.py SRC DST ...``."""

import argparse

from polynl_mm import register
from polynl_mm.atomic_files import expect_outputs, renamed_when_complete
from polynl_mm.recognizers.command_line import add_config_options, check_config_options
from polynl_mm.stack import require_mmaction2
from polynl_mm.user_errors import UserError, user_errors


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv (list[str] | None): The arguments; default those of the process.

    Returns:
        argparse.Namespace: One attribute per option.
    """
    parser = argparse.ArgumentParser(
        description="Convert weights of PySlowFast (C2D, I3D, Slow, SlowFast, NLN)."
    )
    parser.add_argument("source", help=".pyth checkpoint, or .pkl of the model zoo")
    parser.add_argument("target", help="checkpoint to write")
    parser.add_argument(
        "--yaml",
        metavar="FILE",
        help="the model's PySlowFast config, where the checkpoint holds none",
    )
    parser.add_argument(
        "--model-config",
        metavar="FILE.py",
        help="write the MMAction2 model that computes the same, to inherit from",
    )
    parser.add_argument(
        "--config", help="convert for this config's model, and check that it fits"
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
        from mmengine.config import Config

        from polynl_mm.convert.pyslowfast import (
            convert_weights,
            fit_weights,
            read_pyslowfast,
        )
        from polynl_mm.convert.pyslowfast_model import describe_model
        from polynl_mm.recognizers.building import build_recognizer
        from polynl_mm.recognizers.configs import load_config
        from polynl_mm.recognizers.state_dicts import write_checkpoint
        from polynl_mm.stack.safe_checkpoints import trust_checkpoints

        expect_outputs(
            {"target": args.target, "--model-config": args.model_config},
            inputs={
                "source": args.source,
                "--yaml": args.yaml,
                "--config": args.config,
            },
        )
        require_mmaction2()
        check_config_options(args)
        if args.trust_checkpoint:
            trust_checkpoints()
        if args.model_config and not args.model_config.endswith(".py"):
            raise UserError(
                f"--model-config writes a .py file, not {args.model_config}."
            )
        source = read_pyslowfast(args.source, args.yaml)
        weights = convert_weights(source)
        if args.config:
            cfg, name = load_config(args.config, args.cfg_options), args.config
            notes = []
        if not args.config or args.model_config:
            described, assumed = describe_model(source)
            notes = [
                f"{sentence}; give --yaml if it is not so." for sentence in assumed
            ]
        if not args.config:
            cfg, name = Config(dict(model=described)), args.source
        weights, differences = fit_weights(weights, build_recognizer(cfg, name), name)
        meta = dict(converted_from="PySlowFast")
        write_checkpoint(args.target, weights, meta=meta)
        print(f"{len(weights)} weights written to {args.target}.")
        blocks = sum(
            key.endswith("non_local_block.conv_out.conv.weight") for key in weights
        )
        print(f"{blocks} non-local blocks among them.")
        if source.others:
            print(f"Left out, being no weights: {', '.join(source.others)[:300]}")
        for note in (*notes, *differences):
            print(f"Note: {note}")
        if args.model_config:
            imports = dict(imports=["polynl_mm"], allow_failed_imports=False)
            text = Config(dict(custom_imports=imports, model=described)).pretty_text
            with renamed_when_complete(args.model_config) as partial:
                partial.write_text(text, encoding="utf-8")
            print(f"The model is in {args.model_config}.")
