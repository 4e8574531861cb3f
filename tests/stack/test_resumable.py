import errno
import os
import random
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import worker_init_fn
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import EMAHook
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.utils.data import DataLoader, Dataset

from polynl_mm.atomic_files import renamed_when_complete
from polynl_mm.stack.atomic_writes import AtomicLocalBackend
from polynl_mm.stack.resumable import (
    CrashSafeCheckpointHook,
    EpochSeedHook,
    SomethingToTrainHook,
    check_resumable,
    find_checkpoint_to_resume,
    make_resumable,
    seed_everything,
    seed_worker,
)
from polynl_mm.user_errors import UserError


class Noise(Dataset):
    """Every sample is drawn anew, from all three random number generators."""

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        drawn = [random.random(), np.random.rand(), torch.rand(()).item()]
        return {"inputs": torch.tensor(drawn, dtype=torch.float32)}


class Recorder(BaseModel):
    """A linear model with dropout that keeps the batches it saw."""

    def __init__(self, seen):
        super().__init__()
        self.layer = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(3, 1))
        self.seen = seen

    def forward(self, inputs, data_samples=None, mode="loss"):
        loss = self.layer(inputs).square().mean()
        self.seen.append((inputs.tolist(), loss.item()))
        return {"loss": loss}


def run(work_dir, epochs, seen, resume=False, workers=1, by_epoch=True, **checkpoint):
    cfg = Config(
        {
            "randomness": {"seed": 5},
            "default_hooks": {
                "checkpoint": {"type": "CheckpointHook", "interval": 1, **checkpoint}
            },
        }
    )
    if not by_epoch:
        cfg.default_hooks.checkpoint.by_epoch = False
    make_resumable(cfg)
    torch.manual_seed(0)
    steps = {"by_epoch": True, "max_epochs": epochs}
    if not by_epoch:
        steps = {"by_epoch": False, "max_iters": epochs}
    loader = DataLoader(
        Noise(4 if by_epoch else 20),
        batch_size=2,
        num_workers=workers,
        # As MMEngine does: the same numbers in every epoch.
        worker_init_fn=partial(worker_init_fn, num_workers=1, rank=0, seed=5),
    )
    runner = Runner(
        model=Recorder(seen),
        work_dir=str(work_dir),
        train_dataloader=loader,
        train_cfg=steps,
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9}},
        default_hooks=cfg.default_hooks,
        custom_hooks=cfg.custom_hooks,
        randomness=cfg.randomness,
        load_from=find_checkpoint_to_resume(work_dir) if resume else None,
        resume=resume,
        experiment_name=f"test{random.random()}",
        log_level="ERROR",
    )
    runner.train()
    return runner


@pytest.mark.parametrize("workers", [0, 1])
def test_epochs_after_resuming_are_those_of_a_whole_run(tmp_path, workers):
    whole, first, second = [], [], []
    run(tmp_path / "whole", 3, whole, workers=workers)
    run(tmp_path / "part", 2, first, workers=workers)
    torch.rand(17)  # whatever happened meanwhile
    run(tmp_path / "part", 3, second, resume=True, workers=workers)
    assert first == whole[:4]
    assert second == whole[4:]
    assert whole[0][0] != whole[2][0], "every epoch must draw new numbers"


def test_iterations_after_resuming_are_those_of_a_whole_run(tmp_path):
    whole, first, second = [], [], []
    run(tmp_path / "whole", 5, whole, by_epoch=False)
    run(tmp_path / "part", 3, first, by_epoch=False)
    run(tmp_path / "part", 5, second, by_epoch=False, resume=True)
    assert first == whole[:3]
    assert second == whole[3:]


def test_ranks_and_epochs_draw_other_numbers():
    drawn = set()
    for epoch in range(3):
        for rank in range(3):
            seed_everything(1, epoch, rank)
            drawn.add((random.random(), np.random.rand(), torch.rand(()).item()))
    assert len({a for a, _, _ in drawn}) == 9
    assert len({b for _, b, _ in drawn}) == 9
    assert len({c for _, _, c in drawn}) == 9


def test_a_whole_checkpoint_is_there_at_any_time(tmp_path):
    there = []

    class Watching(AtomicLocalBackend):
        def put(self, obj, filepath):
            there.append(sorted(p.name for p in tmp_path.glob("*.pth")))
            super().put(obj, filepath)

    register_backend("local", Watching, force=True, prefixes="")
    try:
        run(tmp_path, 3, [], workers=0, max_keep_ckpts=1)
    finally:
        register_backend("local", AtomicLocalBackend, force=True, prefixes="")
    assert there == [[], ["epoch_1.pth"], ["epoch_2.pth"]]
    assert [p.name for p in tmp_path.glob("*.pth")] == ["epoch_3.pth"]
    last = (tmp_path / "last_checkpoint").read_text()
    assert last == str(tmp_path / "epoch_3.pth")
    assert issubclass(AtomicLocalBackend, LocalBackend)


@pytest.mark.parametrize("where", ["another run", "its own"])
def test_best_checkpoint_of_another_run_is_left_alone(tmp_path, where):
    """A checkpoint to resume from names it, and may have been made by anybody."""
    own, others = tmp_path / "run", tmp_path / "other"
    others.mkdir()
    own.mkdir()
    best = (own if where == "its own" else others) / "best_acc.pth"
    best.touch()
    hook = CrashSafeCheckpointHook(save_best="acc", rule="greater")
    hub = MessageHub.get_instance(f"{tmp_path}")
    hub.update_info("best_ckpt", str(best))
    hub.update_info("best_score", 0.1)
    lines = []
    runner = SimpleNamespace(
        work_dir=str(own), epoch=0, iter=0, message_hub=hub,
        logger=SimpleNamespace(info=lines.append),
        save_checkpoint=lambda *folder, filename, **_: Path(*folder, filename).touch(),
    )  # fmt: skip
    hook.before_train(runner)
    hook._save_best_checkpoint(runner, {"acc": 0.9})
    assert best.exists() == (where == "another run")
    assert any("is removed" in line for line in lines) == (where == "its own")
    assert [path.name for path in own.glob("best_*")] == ["best_acc_epoch_0.pth"]


def test_failing_write_leaves_the_previous_checkpoint(tmp_path):
    class FullDisk(AtomicLocalBackend):
        def put(self, obj, filepath):
            if "epoch_2" in str(filepath):
                obj = memoryview(obj)[: len(obj) // 2]
                with renamed_when_complete(filepath) as partial:
                    partial.write_bytes(obj)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            super().put(obj, filepath)

    whole, part, rest = [], [], []
    run(tmp_path / "whole", 3, whole)
    register_backend("local", FullDisk, force=True, prefixes="")
    try:
        with pytest.raises(UserError, match=r"\(No space left .*epoch_1\.pth is whole"):
            run(tmp_path / "part", 3, part, max_keep_ckpts=1)
    finally:
        register_backend("local", AtomicLocalBackend, force=True, prefixes="")
    left = [path.name for path in (tmp_path / "part").iterdir() if "epoch" in path.name]
    assert left == ["epoch_1.pth"]
    run(tmp_path / "part", 3, rest, resume=True)
    assert rest == whole[2:]


def test_what_to_resume_is_found_where_the_record_is_unfit(tmp_path):
    assert find_checkpoint_to_resume(str(tmp_path)) is None
    for name in ("epoch_2.pth", "epoch_10.pth", "best_acc_epoch_12.pth"):
        (tmp_path / name).touch()
    newest = str(tmp_path / "epoch_10.pth")
    assert find_checkpoint_to_resume(str(tmp_path)) == newest
    record = tmp_path / "last_checkpoint"
    record.write_text("")
    assert find_checkpoint_to_resume(str(tmp_path)) == newest
    record.write_text(os.path.join("moved", "away", "epoch_2.pth"))
    assert find_checkpoint_to_resume(str(tmp_path)) == str(tmp_path / "epoch_2.pth")


def test_config_changes_only_where_needed():
    loader = {"persistent_workers": True}
    hooks = {"checkpoint": {"type": "CheckpointHook", "interval": 1}}
    cfg = Config({"train_dataloader": loader, "default_hooks": hooks})
    make_resumable(cfg)
    assert cfg.train_dataloader.persistent_workers is True
    assert cfg.get("custom_hooks") is None
    assert cfg.default_hooks.checkpoint.type == "CrashSafeCheckpointHook"
    cfg.randomness = {"seed": 1}
    make_resumable(cfg)
    make_resumable(cfg)
    assert cfg.train_dataloader.persistent_workers is False
    assert [hook.type for hook in cfg.custom_hooks] == ["EpochSeedHook"]
    own = Config({"default_hooks": {"checkpoint": {"type": "MyCheckpointHook"}}})
    make_resumable(own)
    assert own.default_hooks.checkpoint.type == "MyCheckpointHook"


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"default_hooks": None},
        {"default_hooks": {"timer": {"type": "IterTimerHook"}}},
        {"default_hooks": {"checkpoint": {"type": "mmengine.CheckpointHook"}}},
    ],
    ids=["nothing", "none", "others", "scoped"],
)
def test_every_config_writes_checkpoints_crash_safely(content):
    cfg = Config(content)
    make_resumable(cfg)
    assert cfg.default_hooks.checkpoint.type == "CrashSafeCheckpointHook"


def test_config_without_checkpoints_stays_without():
    cfg = Config({"default_hooks": {"checkpoint": None}})
    make_resumable(cfg)
    assert cfg.default_hooks.checkpoint is None


def own_worker_init_fn(worker_id, **kwargs):
    pass


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (None, False),
        (partial(worker_init_fn, num_workers=1, rank=0, seed=5), False),
        (own_worker_init_fn, True),
        (partial(own_worker_init_fn, folder="a"), True),
    ],
    ids=["none", "mmengine", "own", "own-in-config"],
)
def test_own_set_up_of_the_workers_stays(given, kept):
    loader = SimpleNamespace(worker_init_fn=given)
    loop = EpochBasedTrainLoop.__new__(EpochBasedTrainLoop)
    EpochSeedHook().before_train(
        SimpleNamespace(train_loop=loop, train_dataloader=loader)
    )
    assert loader.worker_init_fn is (given if kept else seed_worker)


WHOLE = dict(
    meta=dict(epoch=1, iter=6),
    message_hub={},
    optimizer=dict(state={}, param_groups=[{}]),
    param_schedulers=[],
)


@pytest.mark.parametrize(
    ("change", "entry"),
    [
        *((dict(meta=value), "meta") for value in (None, [], "text")),
        *((dict(message_hub=value), "message_hub") for value in (None, [1])),
        *((dict(optimizer=value), "optimizer") for value in (None, [], "text")),
        (dict(optimizer=dict(param_groups={})), "optimizer has no list"),
        (dict(param_schedulers="text"), "param_schedulers"),
        *(
            (
                dict(meta=dict(epoch=value, iter=1)),
                "meta.epoch is a whole number from 0",
            )
            for value in (-1, "2", None, 1.5, True)
        ),
        (dict(meta=dict(epoch=1)), "meta.iter is a whole number from 0, not None"),
    ],
    ids=str,
)
def test_checkpoints_that_do_not_say_where_they_stood(change, entry):
    check_resumable(WHOLE)
    with pytest.raises(UserError, match="cannot be resumed") as error:
        check_resumable({**WHOLE, **change})
    assert entry in str(error.value)


def test_diverged_optimizer_is_refused():
    state = {0: dict(step=torch.tensor(1.0), exp_avg=torch.tensor([0.0, float("nan")]))}
    optimizer = dict(state=state, param_groups=[{}])
    with pytest.raises(UserError, match=r"NaN or infinite numbers \(exp_avg\)"):
        check_resumable({**WHOLE, "optimizer": optimizer})


def test_averaged_weights_are_not_resumed_without_their_hook():
    runner = SimpleNamespace(_resume=True, param_schedulers=[1], train_loop=None)
    averaged = {**WHOLE, "ema_state_dict": {}}
    for hooks, checkpoint in (([EMAHook()], averaged), ([], WHOLE)):
        runner.hooks = hooks
        SomethingToTrainHook().after_load_checkpoint(runner, checkpoint)
    with pytest.raises(UserError, match="cannot be resumed without EMAHook"):
        SomethingToTrainHook().after_load_checkpoint(runner, averaged)


def test_checkpoints_without_what_moves_the_weights():
    for key in ("optimizer", "param_schedulers"):
        rest = {k: v for k, v in WHOLE.items() if k != key}
        with pytest.raises(UserError, match=f"cannot be resumed: it has no {key}"):
            check_resumable(rest)
    check_resumable(rest, has_schedules=False)
