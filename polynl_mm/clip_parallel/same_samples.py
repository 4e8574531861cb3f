"""The ranks of a group hold the same samples, whatever one of them cannot read."""

import copy

import torch
import torch.distributed as dist
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop

from polynl_mm.clip_parallel.own_frames import (
    WHICH,
    Reading,
    read_own_frames,
    which,
)
from polynl_mm.clip_parallel.shares import Share
from polynl_mm.datasets.decoding.bad_videos import base_datasets
from polynl_mm.stack.resumable import seed_everything
from polynl_mm.user_errors import UserError

MAX_ROUNDS = 100


class SameSamplesHook(Hook):
    """Cuts the samples of a run up, and sees that the ranks of a group agree on them.

    A file may be damaged in one rank's frames only. That rank has read another sample
    in its place, by ``BadVideosHook``; the others then read that one, too.

    Args:
        share (Share): This rank's.
        segments (int | None): As in :class:`Reading`.
    """

    priority = "HIGHEST"

    def __init__(self, share: Share, segments: int | None):
        self.share, self.segments = share, segments
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._datasets: dict[str, list] = {}

    def before_train(self, runner) -> None:
        """Prepare the training pipelines."""
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            self._epoch.fill_(-1)
        self._prepare(runner, "train", runner.train_dataloader, self._epoch)

    def before_val(self, runner) -> None:
        """Prepare the validation pipelines."""
        self._prepare(runner, "val", runner.val_dataloader)

    def before_test(self, runner) -> None:
        """Prepare the test pipelines."""
        self._prepare(runner, "test", runner.test_dataloader)

    def before_train_epoch(self, runner) -> None:
        """Let the choices of every epoch be others."""
        if isinstance(runner.train_loop, EpochBasedTrainLoop):
            self._epoch.fill_(runner.epoch)

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Agree on the samples, and draw the same numbers from here on."""
        self._agree("train", data_batch)
        group = self.share.ranks[0] // self.share.count
        seed_everything(runner.seed, runner.iter, group)

    def before_val_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Agree on the samples."""
        self._agree("val", data_batch)

    def before_test_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Agree on the samples."""
        self._agree("test", data_batch)

    def _prepare(self, runner, split: str, loader, epoch=None) -> None:
        if split in self._datasets:
            return
        datasets = list(base_datasets(loader.dataset))
        if epoch is None:
            epoch = torch.zeros((), dtype=torch.int64)
        reading = Reading(self.share, runner.seed, epoch, self.segments)
        for number, dataset in enumerate(datasets):
            read_own_frames(dataset, number, reading)
        self._datasets[split] = datasets

    def _agree(self, split: str, batch: dict) -> None:
        """Compare with the other ranks, and replace what they could not read."""
        samples = batch["data_samples"]
        for _ in range(MAX_ROUNDS):
            held = torch.tensor([which(sample) for sample in samples])
            all_held = self._gather(held)
            if (all_held[:, :, :3] != all_held[:1, :, :3]).any():
                raise UserError(
                    "The ranks that share a clip hold different samples: rank "
                    f"{dist.get_rank()} has {held[:, 1].tolist()}. Give every rank "
                    "the same data, config and number of workers."
                )
            draws = all_held[:, :, 3].max(0).values
            if torch.equal(all_held[:, :, 3], draws.expand(self.share.count, -1)):
                for sample in samples:
                    sample.pop(WHICH)  # nobody else's business
                return
            for place in (held[:, 3] < draws).nonzero().flatten().tolist():
                number, index, visit, _ = which(samples[place])
                dataset = self._datasets[split][number]
                info = copy.deepcopy(dataset.get_data_info(index))
                info[WHICH] = (number, index, visit)
                info["draws"] = int(draws[place])
                read = dataset.pipeline(info)
                batch["inputs"][place] = read["inputs"]
                samples[place] = read["data_samples"]
        raise UserError(
            f"{MAX_ROUNDS} samples in a row cannot be read by one rank or another. Are "
            "the videos still there?"
        )

    def _gather(self, held: torch.Tensor) -> torch.Tensor:
        """Return what all ranks of the group hold: (ranks, samples, 4)."""
        if dist.get_backend(self.share.group) == "nccl":
            held = held.cuda()
        every = [torch.empty_like(held) for _ in range(self.share.count)]
        dist.all_gather(every, held, group=self.share.group)
        return torch.stack(every).cpu()
