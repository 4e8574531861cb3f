"""Testing once its command line is read: config, checks, Runner."""

import argparse

from mmengine.dist import is_main_process

from polynl_mm.atomic_files import expect_outputs, write_json
from polynl_mm.clip_parallel.runs import ranks_of, sample_by_groups, shared_clips
from polynl_mm.datasets.annotations import annotation_files, check_datasets
from polynl_mm.datasets.decoding.bad_videos import stop_at_bad_videos
from polynl_mm.recognizers.config_values import check_values
from polynl_mm.recognizers.configs import (
    add_hook,
    build_runner,
    expect_checkpoint,
    load_config,
    set_work_dir,
    unshard,
)
from polynl_mm.recognizers.evaluation_pipelines import bound_decoding, name_samples
from polynl_mm.stack import (
    require_mmaction2,
    testing_views,  # noqa: F401  (registers its hook)
)
from polynl_mm.stack.float32_products import let_products_follow_convolutions
from polynl_mm.stack.process_group import process_group
from polynl_mm.stack.safe_checkpoints import trust_checkpoints
from polynl_mm.user_errors import UserError


def merge_args(cfg, args: argparse.Namespace) -> None:
    """Merge the command line into the config, in place.

    Args:
        cfg (mmengine.Config): The config of the run.
        args (argparse.Namespace): The command line of ``tools/test.py``.

    Raises:
        UserError: If an option does not fit.
    """
    cfg.launcher = args.launcher
    cfg.resume = False
    set_work_dir(cfg, args.work_dir, args.config)
    expect_outputs(
        {"--metrics": args.metrics, "--dump": args.dump},
        {"--work-dir": cfg.work_dir, "--show-dir": args.show_dir},
        {
            "config": args.config,
            "checkpoint": args.checkpoint,
            "ann_file": annotation_files(cfg, "test"),
        },
    )
    if args.show or args.show_dir is not None:
        _draw_pictures(cfg, args)
    elif args.interval is not None or args.wait_time is not None:
        raise UserError(
            "--interval and --wait-time are of the pictures; give --show-dir or --show."
        )
    views = {"type": "BoundedViewsHook", "_scope_": "mmengine"}
    views["max_testing_views"] = args.max_testing_views
    cfg.custom_hooks = [*(cfg.get("custom_hooks") or []), views]
    bound_decoding(cfg)
    if args.dump is not None:
        if not args.dump.endswith((".pkl", ".pickle")):
            raise UserError(f"--dump takes a .pkl file, not {args.dump}.")
        evaluators = cfg.test_evaluator
        if not isinstance(evaluators, (list, tuple)):
            evaluators = [evaluators]
        dump = {"type": "DumpResults", "out_file_path": args.dump}
        cfg.test_evaluator = [*evaluators, dump]
        name_samples(cfg)


def _draw_pictures(cfg, args: argparse.Namespace) -> None:
    if args.wait_time is not None and not args.show:
        raise UserError("--wait-time is of windows; give --show, too.")
    hook = {
        "type": "VisualizationHook",
        "enable": True,
        "interval": 1 if args.interval is None else args.interval,
        "show": args.show,
        "out_dir": args.show_dir,
    }
    if args.wait_time is not None:
        hook["wait_time"] = args.wait_time
    cfg.default_hooks = {**(cfg.get("default_hooks") or {}), "visualization": hook}
    name_samples(cfg)


def test(args: argparse.Namespace) -> None:
    """Evaluate.

    Args:
        args (argparse.Namespace): The command line of ``tools/test.py``.
    """
    require_mmaction2()
    let_products_follow_convolutions()
    if args.trust_checkpoint:
        trust_checkpoints()
    cfg = load_config(args.config, args.cfg_options)
    if not cfg.get("test_dataloader"):
        raise UserError(f"{args.config} has no test_dataloader to test with.")
    check_values(cfg)
    merge_args(cfg, args)
    unshard(cfg)
    ranks = ranks_of(cfg, args.clip_parallel, testing=True)
    if args.accelerate_non_local:
        add_hook(cfg, "AccelerateNonLocalHook")
    expect_checkpoint(cfg, args.config, args.checkpoint, complete=True)
    check_datasets(cfg, ("test",))
    stop_at_bad_videos(cfg)
    with process_group(cfg, args.launcher):
        sample_by_groups(cfg, ranks)
        runner = build_runner(cfg)
        with shared_clips(runner, ranks):
            metrics = runner.test()
        if args.metrics and is_main_process():
            write_json(args.metrics, metrics)
