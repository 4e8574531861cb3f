"""Operations and parameters of a config's model, by torch's operation counter."""

import argparse

from polynl_mm import register
from polynl_mm.recognizers.command_line import add_cfg_options
from polynl_mm.stack import require_mmaction2
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
        required=True,
        metavar="N",
        help="one view: 3 T H W for a 3D recognizer, T 3 H W for a 2D one",
    )
    add_cfg_options(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Print the cost of one view.

    Args:
        argv (list[str] | None): The command line; default that of the process.
    """
    args = parse_args(argv)
    with user_errors():
        register()
        import torch
        from mmengine.registry import init_default_scope

        from polynl_mm.analysis.cost.operations import count_recognizer_cost
        from polynl_mm.recognizers.configs import load_config

        require_mmaction2()
        cfg = load_config(args.config, args.cfg_options)
        init_default_scope(cfg.get("default_scope", "mmaction"))
        from mmaction.registry import MODELS

        with torch.device("meta"):  # counting needs shapes, not numbers
            model = MODELS.build(cfg.model)
        cost = count_recognizer_cost(model, args.shape)
        print(f"Input shape: {tuple(args.shape)}, one view")
        print(f"FLOPs: {cost.gflops:.1f} G (multiplications with their additions)")
        print(f"Parameters: {cost.parameters / 1e6:.1f} M")
