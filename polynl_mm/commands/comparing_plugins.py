"""Comparing plugins once the command line is read: settings, measuring, files."""

import argparse
import re
from pathlib import Path

import torch
from mmengine.device import get_device

from polynl_mm.analysis.cost.budgets import parse_bytes
from polynl_mm.analysis.cost.choice_pictures import (
    draw_choices,
    format_table,
    write_csv,
)
from polynl_mm.analysis.cost.choice_setting import Setting
from polynl_mm.analysis.cost.choices import (
    NONE,
    choice_config,
    parse_plugin,
)
from polynl_mm.analysis.cost.compare_choices import compare_choices
from polynl_mm.atomic_files import expect_outputs, renamed_when_complete
from polynl_mm.recognizers.command_line import check_counts
from polynl_mm.recognizers.configs import load_config
from polynl_mm.stack import require_mmaction2
from polynl_mm.user_errors import UserError


def read_setting(args: argparse.Namespace, recognizer: str) -> Setting:
    """Check the options, and say what is measured.

    Args:
        args (argparse.Namespace): From :func:`parse_args`.
        recognizer (str): The type of the config's model.

    Returns:
        Setting: What to measure.

    Raises:
        UserError: If an option has an impossible value, or needs another one.
    """
    check_counts(args, ("batch_size", "rounds", "threads"))
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no CUDA GPU on this machine.")
    if args.verify and args.memory_budget is None:
        raise UserError("--verify tries what --memory-budget allows; give that, too.")
    flat = recognizer == "Recognizer2D"
    if args.shape[1 if flat else 0] != 3 or min(args.shape) < 1:
        raise UserError(
            f"--shape of a {recognizer} is {'T 3 H W' if flat else '3 T H W'}, not "
            f"{' '.join(map(str, args.shape))}."
        )
    setting = Setting(
        shape=tuple(args.shape),
        batch=args.batch_size,
        rounds=args.rounds,
        device=args.device,
        budget=parse_bytes(args.memory_budget) if args.memory_budget else None,
        verify=args.verify,
        flat=flat,
    )
    if setting.budget and setting.frames < 2:
        raise UserError(
            "--memory-budget needs clips of two frames at least, to see how memory "
            "grows with them."
        )
    return setting


def file_name(choice: str) -> str:
    """Return a choice's name as that of a file.

    Args:
        choice (str): Such as ``NonLocalBlock3d(mode=dot_product)``.
    """
    return re.sub(r"[^\w.=-]+", "_", choice).strip("_")


def run(args: argparse.Namespace) -> None:
    """Compare, print the table, and write CSV, picture and configs.

    Args:
        args (argparse.Namespace): The command line of the tool.
    """
    plugins = {text.strip(): parse_plugin(text) for text in args.plugins}
    files = {
        name: args.out / "configs" / f"{file_name(name)}.py"
        for name in (NONE, *plugins)
    }
    expect_outputs(
        {f"the {file.name} of --out": file for file in files.values()},
        {"--out": args.out},
        {"config": args.config},
    )
    require_mmaction2()
    torch.set_num_threads(args.threads or torch.get_num_threads())
    args.device = args.device or get_device()
    cfg = load_config(args.config, args.cfg_options)
    base = choice_config(cfg, None, {}, 1)
    setting = read_setting(args, base.model.type)
    configs = {NONE: base}
    for name, plugin in plugins.items():
        configs[name] = choice_config(cfg, plugin, args.layout, setting.frames)
    choices = compare_choices(configs, setting)
    print(format_table(choices))
    print(
        "Memory is measured: weights, optimizer, activations and gradients of a "
        "training step on one clip, as torch allocates them. Times are ratios to "
        f"no plugin, on {args.device}, medians of {args.rounds} rounds."
    )
    if setting.budget:
        how = "trained" if setting.verify else "predicted; --verify trains them"
        print(f"Largest batch and longest clip in {args.memory_budget}: {how}.")
    write_csv(choices, args.out / "comparison.csv")
    stem = Path(args.config.split("::")[-1]).stem
    shape = " x ".join(map(str, args.shape))
    budget = f", {args.memory_budget}" if args.memory_budget else ""
    draw_choices(choices, args.out / "comparison.png", f"{stem}\n{shape}{budget}")
    for name, config in configs.items():
        with renamed_when_complete(files[name]) as partial:
            config.dump(partial)
    print(f"In {args.out}: comparison.csv, comparison.png, and a config of each.")
