"""Print the whole config, and the plugins that it puts into the model, with cost."""

import argparse

import torch

from polynl_mm.analysis.cost.inserted import format_inserted, list_inserted
from polynl_mm.analysis.cost.operations import count_recognizer_cost
from polynl_mm.analysis.cost.training_steps import quietly
from polynl_mm.experiments.config_tables import one_view
from polynl_mm.recognizers.building import build_recognizer
from polynl_mm.recognizers.configs import CfgOptions, load_config
from polynl_mm.stack import require_mmaction2
from polynl_mm.user_errors import UserError, user_errors


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
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=CfgOptions,
        metavar="KEY=VALUE",
        help="change the config",
    )
    return parser.parse_args(argv)


def view_of(cfg, config: str) -> tuple[int, ...]:
    """Return the shape of a view that a config tests with.

    Args:
        cfg (mmengine.Config): The config.
        config (str): Its name, for the sentence.

    Returns:
        tuple[int, ...]: As ``--shape``.

    Raises:
        UserError: If its test pipeline does not tell.
    """
    try:
        return one_view(cfg)
    except (StopIteration, KeyError, AttributeError, TypeError) as error:
        raise UserError(
            f"The test pipeline of {config} does not tell how large a view is; give "
            "--shape 3 T H W (3D) or T 3 H W (2D)."
        ) from error


def main(argv: list[str] | None = None) -> None:
    """Print.

    Args:
        argv (list[str] | None): The command line; default that of the process.
    """
    args = parse_args(argv)
    with user_errors():
        require_mmaction2()
        cfg = load_config(args.config, args.cfg_options)
        if not args.plugins_only:
            print(f"{cfg.pretty_text.rstrip()}\n")
        if not cfg.get("model"):
            raise UserError(f"{args.config} has no model, so nothing is in it.")
        shape = args.shape or view_of(cfg, args.config)
        with quietly(), torch.device("meta"):  # counting needs shapes, not numbers
            model = build_recognizer(cfg, args.config)
        whole = count_recognizer_cost(model, shape)
        print(
            f"One view of {' x '.join(map(str, shape))}: {whole.gflops:.1f} GFLOPs, "
            f"{whole.parameters / 1e6:.1f} M parameters"
        )
        blocks = list_inserted(model, shape)
        if not blocks:
            print("No plugin and no non-local block is in this model.")
            return
        print(format_inserted(blocks, whole.gflops))
