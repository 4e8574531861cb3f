"""What each plugin would cost in a config's network, before any is trained."""

import argparse
import re
from pathlib import Path

import torch

from polynl_mm.analysis.cost.budgets import parse_bytes
from polynl_mm.analysis.cost.choice_pictures import (
    draw_choices,
    format_table,
    write_csv,
)
from polynl_mm.analysis.cost.choices import (
    EXAMPLE,
    NONE,
    choice_config,
    parse_plugin,
)
from polynl_mm.analysis.cost.compare_choices import Setting, compare_choices
from polynl_mm.atomic_files import expect_outputs, renamed_when_complete
from polynl_mm.recognizers.command_line import check_counts
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
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--device",
        choices=["cpu", "cuda"],
        default="cuda" if torch.cuda.is_available() else "cpu",
    )
    parser.add_argument("--out", type=Path, default=Path("work_dirs/compare_plugins"))
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=CfgOptions,
        metavar="KEY=VALUE",
        help="change the config",
    )
    return parser.parse_args(argv)


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


def main(argv: list[str] | None = None) -> None:
    """Compare, print the table, and write CSV, picture and configs.

    Args:
        argv (list[str] | None): The command line; default that of the process.
    """
    args = parse_args(argv)
    with user_errors():
        expect_outputs(folders={"--out": args.out})
        plugins = {text.strip(): parse_plugin(text) for text in args.plugins}
        require_mmaction2()
        torch.set_num_threads(args.threads)
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
            file = args.out / "configs" / f"{file_name(name)}.py"
            with renamed_when_complete(file) as partial:
                config.dump(partial)
        print(f"In {args.out}: comparison.csv, comparison.png, and a config of each.")
