"""Printing a config once the command line is read: its text, its blocks."""

import argparse

import torch

from polynl_mm.analysis.cost.inserted import format_inserted, list_inserted
from polynl_mm.analysis.cost.operations import count_recognizer_cost
from polynl_mm.analysis.cost.training_steps import quietly
from polynl_mm.experiments.config_tables import one_view
from polynl_mm.recognizers.building import build_recognizer
from polynl_mm.recognizers.configs import load_config
from polynl_mm.stack import require_mmaction2
from polynl_mm.user_errors import UserError


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


def run(args: argparse.Namespace) -> None:
    """Print.

    Args:
        args (argparse.Namespace): The command line of the tool.
    """
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
