"""What plugins cost whole networks: ``benchmark_models.py CONFIG ... --threads N``."""

import argparse
from pathlib import Path

from polynl_mm import register
from polynl_mm.analysis.cost.network_setting import MEASURES, Setting
from polynl_mm.analysis.cost.network_tables import format_networks
from polynl_mm.atomic_files import expect_outputs, renamed_when_complete, write_json
from polynl_mm.experiments.page_tables import check_page, write_table
from polynl_mm.recognizers.command_line import check_counts
from polynl_mm.stack import require_mmaction2
from polynl_mm.text_files import parse_json, read_text
from polynl_mm.user_errors import UserError, user_errors

COUNTS = ("reduction", "rounds", "batch", "shape", "threads")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv (list[str] | None): The arguments; default those of the process.

    Returns:
        argparse.Namespace: One attribute per option.
    """
    default = Setting()
    parser = argparse.ArgumentParser(
        description="Measure each config's network with no plugin, with PolyNL and "
        "with mmcv's block in the places of its plugins, in turns on the CPU.",
        epilog="Without configs, --page is written from the file of --out.",
    )
    parser.add_argument("configs", nargs="*", metavar="CONFIG", help="of WithPlugins")
    parser.add_argument(
        "--reduction",
        type=int,
        nargs="+",
        default=list(default.reductions),
        metavar="N",
        help="of PolyNL (default %(default)s)",
    )
    parser.add_argument(
        "--measure",
        nargs="+",
        choices=MEASURES,
        default=list(default.measures),
        help="what to measure (default all)",
    )
    parser.add_argument(
        "--shape",
        type=int,
        nargs=4,
        metavar="N",
        help="one clip: 3 T H W for a 3D recognizer, T 3 H W for a 2D one; default "
        "what each config trains on",
    )
    parser.add_argument(
        "--batch",
        type=int,
        default=default.batch,
        help="clips of a training step (default %(default)s)",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=default.rounds,
        help="how often each is timed, in turns (default %(default)s)",
    )
    parser.add_argument("--threads", type=int, help="of torch")
    parser.add_argument(
        "--videos",
        metavar="DIR",
        help="what to decode (default: generated Bookends clips)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("work_dirs/benchmark_models.json"),
        metavar="FILE.json",
        help="the numbers, and without --page their tables in FILE.md (default "
        "%(default)s)",
    )
    parser.add_argument(
        "--page", type=Path, metavar="FILE.md", help="write the tables into this page"
    )
    return parser.parse_args(argv)


def measure(args: argparse.Namespace) -> dict:
    """Measure every config, writing what there is after each.

    Args:
        args (argparse.Namespace): From :func:`parse_args`.

    Returns:
        dict: The results, as the file has them.
    """
    register()
    import torch

    from polynl_mm.analysis.cost.whole_networks import describe_machine, measure_network
    from polynl_mm.recognizers.configs import load_config

    require_mmaction2()
    if args.threads:
        torch.set_num_threads(args.threads)
    setting = Setting(
        reductions=tuple(args.reduction),
        measures=tuple(args.measure),
        rounds=args.rounds,
        batch=args.batch,
        shape=args.shape and tuple(args.shape),
        videos=args.videos,
    )
    configs = {config: load_config(config) for config in args.configs}
    results = {"machine": describe_machine(setting), "networks": []}
    for config, cfg in configs.items():
        results["networks"].append(measure_network(cfg, config, setting))
        write_json(args.out, results)
    return results


def main(argv: list[str] | None = None) -> None:
    """Measure, print the tables, and write the files.

    Args:
        argv (list[str] | None): The command line; default that of the process.
    """
    args = parse_args(argv)
    with user_errors():
        check_counts(args, COUNTS)
        if args.out.suffix != ".json":
            raise UserError(f"--out takes a .json file, not {args.out}.")
        if args.page:
            check_page(args.page)
        page = args.page or args.out.with_suffix(".md")
        if args.configs:
            expect_outputs(
                {"--out": args.out, "the page": page}, inputs={"CONFIG": args.configs}
            )
            results = measure(args)
        elif args.page:
            results = parse_json(read_text(args.out, "file of results"), str(args.out))
        else:
            raise UserError("Give configs to measure, or --page to write from --out.")
        tables = format_networks(results)
        print(tables)
        if args.page:
            write_table(tables, page)
            return
        with renamed_when_complete(page) as partial:
            partial.write_text(tables + "\n", encoding="utf-8")
