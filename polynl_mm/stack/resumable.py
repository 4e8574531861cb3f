"""A run that was killed and resumed gives what an uninterrupted run gives.

Mends: MMEngine restores weights and optimizer but no random state, gives its data
workers the same seed in every epoch, deletes the old checkpoint before the new one
is written, lets one rank alone end where the disk is full, and cannot resume where
``last_checkpoint`` is empty or names a file that has moved.
"""

import contextlib
import logging
import math
import os.path as osp
import random
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from mmengine.dataset import worker_init_fn
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop

from polynl_mm.atomic_files import renamed_when_complete
from polynl_mm.user_errors import UserError

# How configs name MMEngine's own hook.
CHECKPOINT_HOOKS = ("CheckpointHook", "mmengine.CheckpointHook", CheckpointHook)


def seed_everything(seed: int, step: int, rank: int) -> None:
    """Seed Python, numpy and torch (all devices) for one stretch of training.

    Args:
        seed (int): The seed of the run, >= 0.
        step (int): The epoch or the iteration that begins.
        rank (int): The process; each draws other numbers.
    """
    mixed = np.random.SeedSequence([seed, step, rank]).generate_state(3)
    random.seed(int(mixed[0]))
    np.random.seed(int(mixed[1]))
    torch.manual_seed(int(mixed[2]))


def seed_worker(worker_id: int) -> None:
    """Seed numpy and Python in a data worker from the seed torch gave it.

    Args:
        worker_id (int): Which worker; torch's seed already depends on it.
    """
    seed = torch.initial_seed() % 2**32
    random.seed(seed)
    np.random.seed(seed)


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Makes the random numbers of an epoch depend on (seed, epoch, rank) only.

    Whether the run came here in one go or was resumed then makes no difference. With
    an iteration-based loop the same holds of every iteration in the main process;
    its data workers replay what they skipped (MMEngine advances the data to where
    the run stopped), so they need ``num_workers`` >= 1 and an ``InfiniteSampler``,
    MMEngine's usual choice there, to come out the same.

    The train dataloader must have ``persistent_workers=False``: workers that outlive
    an epoch carry their random state over it. :func:`make_resumable` sees to that.
    """

    priority = "VERY_HIGH"

    def before_train(self, runner) -> None:
        """Let the data workers draw their seeds from the epoch's."""
        self._by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        if self._by_epoch and _is_seeded_by_mmengine(runner.train_dataloader):
            runner.train_dataloader.worker_init_fn = seed_worker

    def before_train_epoch(self, runner) -> None:
        """Seed the epoch, or what an iteration-based loop does before it starts."""
        step = runner.epoch if self._by_epoch else runner.iter
        seed_everything(runner.seed, step, get_rank())

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Seed the iteration where there are no epochs."""
        if not self._by_epoch:
            seed_everything(runner.seed, runner.iter, get_rank())


def check_resumable(checkpoint: dict, has_schedules: bool = True) -> None:
    """Refuse a checkpoint that does not say where its training stood.

    Args:
        checkpoint (dict): What ``--resume`` loaded.
        has_schedules (bool): Whether the training has parameter schedulers; without,
            a checkpoint stores none.

    Raises:
        UserError: Naming the entry that is missing or of another kind.
    """
    forms = {
        "meta": dict,
        "message_hub": dict,
        "optimizer": dict,
        "param_schedulers": (list, dict),
    }
    for key, form in forms.items():
        if key == "param_schedulers" and key not in checkpoint and not has_schedules:
            continue
        if not isinstance(checkpoint.get(key), form):
            found = "has no " + key
            if key in checkpoint:
                found = f"has a {type(checkpoint[key]).__name__} for {key}"
            raise UserError(
                f"The checkpoint cannot be resumed: it {found}, not what a training "
                "stores to go on from; to start from its weights alone, use "
                "--cfg-options load_from=CHECKPOINT without --resume."
            )
    for key in ("epoch", "iter"):
        value = checkpoint["meta"].get(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise UserError(
                f"The checkpoint cannot be resumed: its meta.{key} is a whole number "
                f"from 0, not {value!r}."
            )
    groups = checkpoint.get("optimizer", {}).get("param_groups", [])
    states = checkpoint.get("optimizer", {}).get("state", {})
    if not isinstance(groups, list) or not isinstance(states, dict):
        raise UserError(
            "The checkpoint cannot be resumed: its optimizer has no list of "
            "param_groups and dict of states."
        )
    for state in states.values():
        for name, value in state.items() if isinstance(state, dict) else ():
            if isinstance(value, torch.Tensor) and not value.isfinite().all():
                raise UserError(
                    "The checkpoint cannot be resumed: its optimizer's state holds NaN "
                    f"or infinite numbers ({name}): its training diverged; take an "
                    "earlier checkpoint."
                )


@HOOKS.register_module()
class SomethingToTrainHook(Hook):
    """Says where a run would end without having trained anything."""

    priority = "VERY_LOW"
    _said = False

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Say where a resumed schedule ends before the training does."""
        if not runner._resume:
            return
        check_resumable(checkpoint, bool(runner.param_schedulers))
        averages = any(
            isinstance(hook, EMAHook) or hasattr(hook, "ema_model")
            for hook in runner.hooks
        )
        if "ema_state_dict" in checkpoint and not averages:
            raise UserError(
                "The checkpoint cannot be resumed without EMAHook: its weights are the "
                "averaged ones, the state of its optimizer that of the trained ones. "
                "Add the EMAHook of its training to custom_hooks, or start a training "
                "from the averaged ones: load_from=CHECKPOINT instead of --resume."
            )
        info = checkpoint["message_hub"].get("runtime_info") or {}
        before, loop = info.get("max_epochs"), runner.train_loop
        if not isinstance(loop, EpochBasedTrainLoop):
            return
        if isinstance(before, int) and before != loop.max_epochs:
            print_log(
                f"The checkpoint is of a training of {before} epochs, this one has "
                f"{loop.max_epochs}: --resume goes on with the old schedule of the "
                "learning rate, which is over or cut off then. For a schedule of "
                f"{loop.max_epochs} epochs start a training from these weights, with "
                "--cfg-options load_from=CHECKPOINT instead of --resume.",
                logger="current",
                level=logging.WARNING,
            )

    def after_train_epoch(self, runner) -> None:
        """Say once that the training has diverged."""
        losses = runner.message_hub.log_scalars.get("train/loss")
        if self._said or losses is None or math.isfinite(losses.current()):
            return
        self._said = True
        print_log(
            f"The loss is {losses.current()} after epoch {runner.epoch + 1}: the "
            "training has diverged, and its weights name no class. Take a lower "
            "learning rate, or optim_wrapper.clip_grad.",
            logger="current",
            level=logging.WARNING,
        )

    def before_train(self, runner) -> None:
        """Look at the data and at where the run stands.

        Raises:
            UserError: If there is no batch in an epoch.
        """
        loader, loop = runner.train_dataloader, runner.train_loop
        if len(loader) == 0:
            raise UserError(
                f"An epoch has no batch: {len(loader.dataset)} samples for a batch of "
                f"{loader.batch_size} on each of {get_world_size()} processes, and "
                "drop_last leaves incomplete ones out; take a smaller "
                "train_dataloader.batch_size."
            )
        by_epoch = isinstance(loop, EpochBasedTrainLoop)
        done, wanted = (
            (runner.epoch, loop.max_epochs)
            if by_epoch
            else (runner.iter, loop.max_iters)
        )
        if done >= wanted:
            unit = "epochs" if by_epoch else "iterations"
            print_log(
                f"There is nothing to train: {done} of {wanted} {unit} are done; set "
                f"train_cfg.max_{'epochs' if by_epoch else 'iters'} to go on.",
                logger="current",
            )


@HOOKS.register_module()
class CrashSafeCheckpointHook(CheckpointHook):
    """MMEngine's CheckpointHook, which deletes old files only after new ones exist.

    With ``max_keep_ckpts=1`` the original leaves no checkpoint at all while it
    writes. For a moment there is one file more than asked for instead. The original
    also deletes the best checkpoint of another run, which a resumed checkpoint names;
    this one deletes nothing outside of its own folder.

    If a checkpoint cannot be written, all ranks stop, and one sentence says why.
    """

    def before_train(self, runner) -> None:
        """Finish the set-up, then put the deletions off."""
        super().before_train(runner)
        self.file_backend = _DeferredDeletion(self.file_backend, self.out_dir)

    def _save_checkpoint(self, runner) -> None:
        with _write_errors_on_all_ranks(runner):
            super()._save_checkpoint(runner)
        self._delete_old()

    def _save_best_checkpoint(self, runner, metrics) -> None:
        self._position = {"epoch": runner.epoch, "iter": runner.iter}
        with _write_errors_on_all_ranks(runner):
            super()._save_best_checkpoint(runner, metrics)
        self._delete_old()

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Record where training stands.

        FlexibleRunner counts the epoch once more when it saves after a validation, and
        would leave one out when it resumes.
        """
        checkpoint["meta"].update(self._position)

    def _save_checkpoint_with_step(self, runner, step, meta) -> None:
        self._position = dict(meta)
        super()._save_checkpoint_with_step(runner, step, meta)
        if get_rank() == 0:
            # Written again, because a kill during the plain write empties the file.
            with renamed_when_complete(Path(runner.work_dir, "last_checkpoint")) as f:
                f.write_text(str(self.last_ckpt), encoding="utf-8")

    def _delete_old(self) -> None:
        best = getattr(self, "best_ckpt_path_dict", None) or {}
        current = {
            self.last_ckpt,
            getattr(self, "best_ckpt_path", None),
            *best.values(),
        }
        self.file_backend.delete_now(keep=current)


@contextlib.contextmanager
def _write_errors_on_all_ranks(runner) -> Iterator[None]:
    """Raise on every rank what keeps one of them from writing a checkpoint.

    The others would go on, and meet a rank that has gone.
    """
    reason = ""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
    reasons = list(filter(None, all_gather_object(reason)))
    if not reasons:
        return
    whole = find_checkpoint_to_resume(runner.work_dir)
    advice = "mend that and start again"
    if whole:
        advice = f"{whole} is whole: mend that and go on with --resume"
    raise UserError(
        f"A checkpoint could not be written to {runner.work_dir} ({reasons[0]}); "
        f"{advice}."
    )


class _DeferredDeletion:
    """A file backend that remembers what to delete until told to.

    What lies outside of ``folder`` is for it no file to be deleted.
    """

    def __init__(self, backend, folder: str):
        self._backend = backend
        self._folder = Path(folder).resolve()
        self._waiting = []

    def __getattr__(self, name):
        return getattr(self._backend, name)

    def isfile(self, path) -> bool:
        return self._is_own(path) and self._backend.isfile(path)

    def isdir(self, path) -> bool:
        return self._is_own(path) and self._backend.isdir(path)

    def _is_own(self, path) -> bool:
        return self._folder in Path(path).resolve().parents

    def remove(self, path) -> None:
        self._waiting.append((self._backend.remove, path))

    def rmtree(self, path) -> None:
        self._waiting.append((self._backend.rmtree, path))

    def delete_now(self, keep: set) -> None:
        for delete, path in self._waiting:
            own = path not in keep and self._is_own(path)
            if own and self._backend.exists(path):
                delete(path)
        self._waiting.clear()


def _is_seeded_by_mmengine(dataloader) -> bool:
    """Return whether the workers have no set-up of the user's own."""
    given = getattr(dataloader, "worker_init_fn", None)
    # MMEngine wraps its function, and a user's from a config, in a partial.
    return given is None or getattr(given, "func", given) is worker_init_fn


def make_resumable(cfg) -> None:
    """Add to a training config what makes resuming exact and safe; in place.

    Checkpoints are written crash-safely always, unless the config has a checkpoint
    hook of its own kind or ``default_hooks.checkpoint=None``. Where
    ``randomness.seed`` is set, the epochs are seeded too (a ``worker_init_fn`` in the
    config stays and then has to seed its workers), and persistent workers of the
    train dataloader are turned off, which is logged.

    Args:
        cfg (mmengine.Config): The config of a training run.
    """
    if cfg.get("default_hooks") is None:
        cfg.default_hooks = {}
    hooks = cfg.default_hooks
    if "checkpoint" not in hooks:
        # What the Runner would add.
        hooks["checkpoint"] = {"type": "CheckpointHook"}
    checkpoint = hooks["checkpoint"]
    if isinstance(checkpoint, dict) and checkpoint.get("type") in CHECKPOINT_HOOKS:
        checkpoint["type"] = "CrashSafeCheckpointHook"
        checkpoint["_scope_"] = "mmengine"
    if (cfg.get("randomness") or {}).get("seed") is None:
        return
    loader = cfg.get("train_dataloader")
    if loader and loader.get("persistent_workers"):
        loader["persistent_workers"] = False
        print_log(
            "persistent_workers of the train dataloader is turned off, because a seed "
            "is set and workers must start each epoch anew to be repeatable.",
            logger="current",
        )
    custom = list(cfg.get("custom_hooks") or [])
    if not any(hook.get("type") == "EpochSeedHook" for hook in custom):
        custom.append({"type": "EpochSeedHook", "_scope_": "mmengine"})
        cfg.custom_hooks = custom


def find_checkpoint_to_resume(work_dir: str) -> str | None:
    """Return the checkpoint that ``--resume`` goes on from.

    Args:
        work_dir (str): The folder of the interrupted run.

    Returns:
        str | None: What ``last_checkpoint`` names; where that is empty or gone, the
        newest ``epoch_*.pth`` or ``iter_*.pth`` of the folder; None if there is none.
    """
    record = Path(work_dir, "last_checkpoint")
    named = record.read_text(encoding="utf-8").strip() if record.is_file() else ""
    if named and ("://" in named or osp.exists(named)):
        return named
    moved = Path(work_dir, osp.basename(named)) if named else None
    if moved is not None and moved.is_file():
        return str(moved)
    found = [
        (int(match[1]), path)
        for path in Path(work_dir).glob("*.pth")
        if (match := re.fullmatch(r"(?:epoch|iter)_(\d+)\.pth", path.name))
    ]
    return str(max(found)[1]) if found else None
