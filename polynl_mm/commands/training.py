"""Training once its command line is read: config, checks, Runner."""

import argparse
import logging

from mmengine.device import get_device
from mmengine.logging import print_log

from polynl_mm.clip_parallel.runs import (
    ranks_of,
    sample_by_groups,
    shared_clips,
)
from polynl_mm.datasets.annotations import check_datasets
from polynl_mm.datasets.decoding.bad_videos import stop_at_bad_videos
from polynl_mm.recognizers.config_values import (
    check_layer_names,
    check_values,
    compare_schedules,
)
from polynl_mm.recognizers.configs import (
    add_hook,
    build_runner,
    expect_checkpoint,
    load_config,
    set_work_dir,
)
from polynl_mm.stack import (
    require_mmaction2,
    testing_views,  # noqa: F401  (registers its hook)
)
from polynl_mm.stack.bfloat16 import measure_slowdown
from polynl_mm.stack.float32_products import let_products_follow_convolutions
from polynl_mm.stack.process_group import process_group
from polynl_mm.stack.recomputation import mend_with_cp
from polynl_mm.stack.resumable import find_checkpoint_to_resume, make_resumable
from polynl_mm.stack.safe_checkpoints import trust_checkpoints
from polynl_mm.stack.work_dirs import hold_work_dir
from polynl_mm.user_errors import UserError


def merge_args(cfg, args: argparse.Namespace) -> None:
    """Merge the command line into the config, in place.

    Args:
        cfg (mmengine.Config): The config of the run.
        args (argparse.Namespace): The command line of ``tools/train.py``.

    Raises:
        UserError: If an option does not fit the config or the machine.
    """
    cfg.launcher = args.launcher
    set_work_dir(cfg, args.work_dir, args.config)
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.amp:
        _use_amp(cfg)
    if args.auto_scale_lr:
        if not (cfg.get("auto_scale_lr") or {}).get("base_batch_size"):
            raise UserError(
                f"--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=...) in "
                f"{args.config}: the batch size that its learning rate is for."
            )
        cfg.auto_scale_lr.enable = True
    randomness = dict(cfg.get("randomness") or {"seed": None})
    if args.seed is not None:
        randomness["seed"] = args.seed
    for flag in ("diff_rank_seed", "deterministic"):
        if getattr(args, flag):
            randomness[flag] = True
    cfg.randomness = randomness


def set_start(cfg, args: argparse.Namespace) -> None:
    """Decide what the run starts from: nothing, other weights, or where it stopped.

    Args:
        cfg (mmengine.Config): Changed in place.
        args (argparse.Namespace): The command line of ``tools/train.py``.

    Raises:
        CheckpointError: If the checkpoint does not exist.
    """
    resume_from = args.resume
    if args.resume == "auto" or (cfg.get("resume") and not cfg.get("load_from")):
        resume_from = find_checkpoint_to_resume(cfg.work_dir)
        if resume_from is None:
            cfg.resume = False
            print_log(
                f"There is no checkpoint in {cfg.work_dir} to resume from: training "
                "starts at the beginning.",
                logger="current",
            )
    if resume_from is not None:
        cfg.resume = True
        expect_checkpoint(cfg, args.config, resume_from, complete=True)
    elif cfg.get("load_from"):
        expect_checkpoint(
            cfg, args.config, cfg.load_from, complete=bool(cfg.get("resume"))
        )


def _use_amp(cfg) -> None:
    kind = cfg.optim_wrapper.get("type", "OptimWrapper")
    if kind not in ("OptimWrapper", "AmpOptimWrapper"):
        raise UserError(
            "--amp works with optim_wrapper.type OptimWrapper or AmpOptimWrapper, but "
            f"the config has {kind}."
        )
    if get_device() == "cpu":
        for key in ("dtype", "loss_scale", "use_fsdp"):  # of AmpOptimWrapper
            cfg.optim_wrapper.pop(key, None)
        cfg.optim_wrapper.type = "Bfloat16OptimWrapper"
        cfg.optim_wrapper["_scope_"] = "mmengine"
        slowdown = measure_slowdown()
        if slowdown > 1.5:
            print_log(
                "--amp is slower here: this CPU takes "
                f"{slowdown:.0f} times as long for a convolution in bfloat16 as in "
                "float32; without --amp the training is faster and more exact.",
                logger="current",
                level=logging.WARNING,
            )
        return
    cfg.optim_wrapper.type = "AmpOptimWrapper"
    cfg.optim_wrapper.setdefault("loss_scale", "dynamic")


def train(args: argparse.Namespace) -> None:
    """Train.

    Args:
        args (argparse.Namespace): The command line of ``tools/train.py``.
    """
    require_mmaction2()
    let_products_follow_convolutions()
    if args.trust_checkpoint:
        trust_checkpoints()
    cfg = load_config(args.config, args.cfg_options)
    merge_args(cfg, args)
    if not cfg.get("train_dataloader"):
        raise UserError(f"{args.config} has no train_dataloader to train with.")
    check_values(cfg)
    compare_schedules(cfg)
    ranks = ranks_of(cfg, args.clip_parallel)
    set_start(cfg, args)
    hold_work_dir(cfg.work_dir, resumes=bool(cfg.get("resume")))
    make_resumable(cfg)
    add_hook(cfg, "SomethingToTrainHook")
    if args.accelerate_non_local:
        add_hook(cfg, "AccelerateNonLocalHook")
    if cfg.get("val_cfg"):
        add_hook(cfg, "BoundedViewsHook")
    check_datasets(cfg, ("train", "val"))
    stop_at_bad_videos(cfg)
    with process_group(cfg, args.launcher):
        sample_by_groups(cfg, ranks)
        runner = build_runner(cfg)
        if not cfg.get("strategy"):  # else it is built later, and these are ignored
            check_layer_names(cfg, runner.model)
        mend_with_cp()
        with shared_clips(runner, ranks):
            runner.train()
