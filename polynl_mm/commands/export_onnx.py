"""Export a recognizer: ``python tools/deployment/export_onnx.py CONFIG CHECKPOINT``."""

import argparse

from polynl_mm import register
from polynl_mm.atomic_files import expect_outputs
from polynl_mm.recognizers.command_line import add_config_options
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
        description="Export a recognizer to ONNX, for any batch size and any number of "
        "views, and compare it with onnxruntime."
    )
    parser.add_argument("config", help="config file, or mmaction::recognition/...")
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument(
        "--shape",
        type=int,
        nargs=4,
        required=True,
        metavar="N",
        help="one view: 3 T H W for a 3D recognizer, T 3 H W for a 2D one",
    )
    parser.add_argument("--out", required=True, metavar="FILE.onnx", help="the file")
    parser.add_argument(
        "--logits",
        action="store_true",
        help="put out the head's scores, not probabilities",
    )
    parser.add_argument(
        "--normalize",
        action="store_true",
        help="take pixels from 0 to 255, with the config's mean and std inside",
    )
    parser.add_argument("--opset", type=int, help="version of ONNX's operators")
    add_config_options(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Export.

    Args:
        argv (list[str] | None): The command line; default that of the process.
    """
    args = parse_args(argv)
    with user_errors():
        register()
        from polynl_mm.deployment.onnx_export import export_onnx, require_packages
        from polynl_mm.recognizers.building import build_recognizer, load_weights
        from polynl_mm.recognizers.configs import load_config
        from polynl_mm.stack.safe_checkpoints import check_exists, trust_checkpoints

        expect_outputs(
            {"--out": args.out},
            inputs={"config": args.config, "checkpoint": args.checkpoint},
        )
        require_mmaction2()
        require_packages()
        if not args.out.endswith(".onnx"):
            raise UserError(f"--out takes a .onnx file, not {args.out}.")
        if args.trust_checkpoint:
            trust_checkpoints()
        cfg = load_config(args.config, args.cfg_options)
        check_exists(args.checkpoint)
        recognizer = build_recognizer(cfg, args.config)
        load_weights(recognizer, args.checkpoint, args.config)
        checks = export_onnx(
            recognizer,
            args.shape,
            args.out,
            logits=args.logits,
            normalize=args.normalize,
            opset=args.opset,
        )
        for check in checks:
            shape = " x ".join(map(str, check.shape))
            print(
                f"onnxruntime differs by {check.difference:.1e} of the largest score "
                f"at {shape}"
            )
        kind = "scores" if args.logits else "probabilities"
        print(f"{args.out}: views (batch, views, ...) -> {kind} (batch, classes)")
