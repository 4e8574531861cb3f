"""Counting the files that a run could not read, and stopping when they are too many."""

import atexit
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import torch
from mmengine.dist import (
    all_gather_object,
    all_reduce,
    broadcast_object_list,
    get_rank,
    is_main_process,
)
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS

from polynl_mm.atomic_files import renamed_when_complete
from polynl_mm.datasets.decoding.counted_wrong import contradict, restore_labels
from polynl_mm.datasets.decoding.surviving_decode import (
    DECODER,
    READER,
    Surroundings,
    SurvivingDecode,
    file_of,
)
from polynl_mm.user_errors import UserError

IN_TESTING = ("fail", "wrong")
SPLIT_NAMES = {"train": "training", "val": "validation", "test": "test"}


@HOOKS.register_module()
class BadVideosHook(Hook):
    """Lets training survive files that cannot be read, and counts them.

    In a config: ``custom_hooks=[dict(type='BadVideosHook')]``. The hook puts
    :class:`SurvivingDecode` into the pipelines of the run. In training, another sample
    of the same dataset, drawn from (seed, epoch, index), replaces an unreadable one.
    Each bad file is logged once, with its path and the reason, whatever the number of
    epochs, data workers and ranks, and across ``--resume``; the work dir's
    ``bad_videos_train.txt`` lists them.

    Args:
        max_share (float): The run stops when more than this share of the training
            videos cannot be read; from 0 to 1.
        in_testing (str): What an unreadable file means in validation and testing:
            ``'fail'`` ends the run with its path, ``'wrong'`` counts its sample as
            wrongly predicted.
        interval (int): How many iterations pass between two counts.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(
        self, max_share: float = 0.05, in_testing: str = "fail", interval: int = 10
    ):
        if not 0 <= max_share <= 1:
            raise ValueError(f"max_share is from 0 to 1, not {max_share!r}.")
        if in_testing not in IN_TESTING:
            raise ValueError(f"in_testing is 'fail' or 'wrong', not {in_testing!r}.")
        if not isinstance(interval, int) or interval < 1:
            raise ValueError(f"interval is a whole number from 1, not {interval!r}.")
        self.max_share = max_share
        self.in_testing = in_testing
        self.interval = interval
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._lists: dict[str, _BadVideos] = {}
        self._wrong: list[int] = []  # places in the current batch

    def before_train(self, runner) -> None:
        """Prepare the training pipelines; when resuming, read what is known."""
        bad = self._watch(runner, "train", runner.train_dataloader)
        if runner.iter > 0:
            bad.read()
        else:
            bad.remove()

    def before_train_epoch(self, runner) -> None:
        """Let the replacements of every epoch be others."""
        self._epoch.fill_(runner.epoch)
        self._count_training(runner)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        """Count from time to time."""
        if (batch_idx + 1) % self.interval == 0:
            self._count_training(runner)

    def after_train_epoch(self, runner) -> None:
        """Count what the epoch met since the last time."""
        self._count_training(runner)

    def after_train(self, runner) -> None:
        """Say how many there were."""
        bad = self._lists["train"]
        if bad.known and is_main_process():
            runner.logger.warning(
                f"{bad.summary()} could not be read and were replaced by others; they "
                f"are listed in {bad.file}."
            )

    def before_val(self, runner) -> None:
        """Prepare the validation pipelines."""
        self._before_testing(runner, "val", runner.val_dataloader)

    def before_test(self, runner) -> None:
        """Prepare the test pipelines."""
        self._before_testing(runner, "test", runner.test_dataloader)

    def before_val_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Restore the labels of what counts as wrong."""
        self._wrong = restore_labels((data_batch or {}).get("data_samples", ()))

    before_test_iter = before_val_iter

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Fail in time, if files cannot be read."""
        last = batch_idx + 1 == len(runner.val_dataloader)
        if last or (batch_idx + 1) % self.interval == 0:
            self._count_testing(runner, "val")

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Fail in time, if files cannot be read."""
        last = batch_idx + 1 == len(runner.test_dataloader)
        if last or (batch_idx + 1) % self.interval == 0:
            self._count_testing(runner, "test")

    def after_val_epoch(self, runner, metrics=None) -> None:
        """Say how many count as wrong."""
        self._after_testing(runner, "val")

    def after_test_epoch(self, runner, metrics=None) -> None:
        """Say how many count as wrong."""
        self._after_testing(runner, "test")

    def _watch(self, runner, split: str, dataloader) -> "_BadVideos":
        datasets = list(base_datasets(dataloader.dataset))
        reports = _reports_of_workers(runner.work_dir, split)
        for dataset in datasets:
            step, before = _surviving_step(dataset, split)
            step.bind(
                Surroundings(
                    dataset=dataset,
                    before=before,
                    mark=split != "train" and self.in_testing == "wrong",
                    seed=runner.seed,
                    epoch=self._epoch,
                    reports=reports,
                )
            )
        self._lists[split] = _BadVideos(
            split, datasets, reports, Path(runner.work_dir, f"bad_videos_{split}.txt")
        )
        return self._lists[split]

    def _before_testing(self, runner, split: str, dataloader) -> None:
        if split in self._lists:
            return
        bad = self._watch(runner, split, dataloader)
        if self.in_testing == "fail":
            bad.remove()
            return
        _check_single_labels(bad.datasets)
        if runner.iter > 0:
            bad.read()
        else:
            bad.remove()
        model = runner.model
        model = model.module if is_model_wrapper(model) else model
        model.register_forward_hook(self._contradict)

    def _contradict(self, model, args, outputs) -> None:
        for place in self._wrong:
            contradict(outputs[place])
        self._wrong = []

    def _count_training(self, runner) -> None:
        bad = self._lists["train"]
        bad.gather(runner, "Bad video")
        if bad.known and self.max_share == 0:
            path, reason = next(iter(bad.known.items()))
            self._stop(
                f"The training video {path} cannot be read: {reason}. Replace such "
                "files by other videos with custom_hooks=[dict(type='BadVideosHook')] "
                "in the config, or find them all with tools/data/check_videos.py."
            )
        if len(bad.known) > self.max_share * bad.total:
            self._stop(
                f"{bad.summary()} cannot be read, and BadVideosHook allows "
                f"max_share={self.max_share}: mend or remove those listed in "
                f"{bad.file}, or allow more."
            )

    def _count_testing(self, runner, split: str) -> None:
        bad = self._lists[split]
        if self.in_testing == "wrong":
            bad.gather(runner, "Bad video, counted as wrong,")
            return
        bad.gather(runner, None)
        if not bad.known:
            return
        path, reason = next(iter(bad.known.items()))
        more = f" (nor can {len(bad.known) - 1} more)" if len(bad.known) > 1 else ""
        self._stop(
            f"The {SPLIT_NAMES[split]} video {path} cannot be read{more}: {reason}. No "
            "sample is left out silently: mend or remove what is listed in "
            f"{bad.file}, or have it counted as wrong with "
            "dict(type='BadVideosHook', in_testing='wrong')."
        )

    def _stop(self, sentence: str) -> NoReturn:
        """End the run; all ranks come here together."""
        for bad in self._lists.values():
            _remove(bad.reports, os.getpid())  # a rank of several leaves at once
        raise UserError(sentence)

    def _after_testing(self, runner, split: str) -> None:
        bad = self._lists[split]
        if bad.known and is_main_process():
            runner.logger.warning(
                f"{bad.summary()} could not be read and count as wrong; they are "
                f"listed in {bad.file}."
            )


def stop_at_bad_videos(cfg) -> None:
    """Have a run without a BadVideosHook name the file that ends it; in place.

    Where a pipeline decodes no videos, nothing changes.

    Args:
        cfg (mmengine.Config): The config of a run.
    """
    hooks = list(cfg.get("custom_hooks") or [])
    pipelines = []
    for split in SPLIT_NAMES:
        loader = cfg.get(f"{split}_dataloader")
        if loader:
            dataset = loader.get("dataset") if isinstance(loader, dict) else None
            pipelines.append((dataset or {}).get("pipeline") or [])
    if any(str(h.get("type")).endswith("BadVideosHook") for h in hooks) or not all(
        any(DECODER.fullmatch(str(step.get("type"))) for step in steps)
        for steps in pipelines
    ):
        return
    stopping = {"type": "BadVideosHook", "max_share": 0, "_scope_": "mmengine"}
    cfg.custom_hooks = [*hooks, stopping]


class _BadVideos:
    """The files of a split that cannot be read, the same on all ranks.

    Args:
        split (str): ``"train"``, ``"val"`` or ``"test"``.
        datasets (list): The datasets that the split reads.
        reports (str): To which this rank's data workers append what they meet.
        file (Path): The list of the work dir, which the main process writes.
    """

    def __init__(self, split: str, datasets: list, reports: str, file: Path):
        self.split, self.datasets, self.file = split, datasets, file
        self.total = sum(len(dataset) for dataset in datasets)
        self.known: dict[str, str] = {}
        self.reports, self._read_bytes = reports, 0

    def summary(self) -> str:
        """Return how many of how many, with their share."""
        count = len(self.known)
        name = SPLIT_NAMES[self.split]
        return f"{count} of {self.total} {name} videos ({count / self.total:.2%})"

    def gather(self, runner, title: str | None) -> None:
        """Take over what the workers of all ranks met, and log what is new."""
        fresh = self._fresh()
        count = torch.tensor(len(fresh))
        all_reduce(count)
        if not count:
            return
        for found in all_gather_object(fresh):
            for path, reason in found:
                if path in self.known:
                    continue
                self.known[path] = reason
                if is_main_process():
                    self._append(path, reason)
                    if title:
                        runner.logger.warning(
                            f"{title} {self._number()}: {path}: {reason}"
                        )

    def read(self) -> None:
        """Take over what an interrupted run knew, and still holds."""
        known = [self._still_bad() if is_main_process() else {}]
        broadcast_object_list(known)
        self.known = known[0]

    def remove(self) -> None:
        """Forget what an earlier run in this work dir knew."""
        if is_main_process():
            self.file.unlink(missing_ok=True)

    def _number(self) -> str:
        count = len(self.known)
        return f"{count} ({count / self.total:.2%} of {self.total})"

    def _fresh(self) -> list[tuple[str, str]]:
        """Return what the workers of this rank met since the last call."""
        try:
            with open(self.reports, "rb") as file:
                file.seek(self._read_bytes)
                content = file.read()
        except FileNotFoundError:
            return []
        content = content[: content.rfind(b"\n") + 1]
        self._read_bytes += len(content)
        met = (os.fsdecode(line).rpartition("\t") for line in content.split(b"\n")[:-1])
        return [(path, reason) for path, _, reason in met if path not in self.known]

    def _append(self, path: str, reason: str) -> None:
        with open(self.file, "ab") as file:
            file.write(os.fsencode(f"{path}\t{reason}\t{_state(path)}\n"))

    def _still_bad(self) -> dict[str, str]:
        """Return the recorded files, but those mended or taken out of the list since.

        The record is then written anew, whole lines only.
        """
        with contextlib.suppress(FileNotFoundError):
            lines = self.file.read_bytes().split(b"\n")[:-1]
            fields = [os.fsdecode(line).rsplit("\t", 2) for line in lines]
            paths = {
                file_of(dataset.get_data_info(index))
                for dataset in self.datasets
                for index in range(len(dataset))
            }
            known = {
                line[0]: line
                for line in fields
                if len(line) == 3 and line[0] in paths and line[2] == _state(line[0])
            }
            with renamed_when_complete(self.file) as partial:
                partial.write_bytes(
                    b"".join(os.fsencode("\t".join(x) + "\n") for x in known.values())
                )
            return {path: reason for path, reason, _ in known.values()}
        return {}


def _state(path: str) -> str:
    """Return what changes when a file is mended."""
    try:
        found = os.stat(path)
    except OSError:
        return "missing"
    return f"{found.st_size}-{found.st_mtime_ns}"


def _reports_of_workers(work_dir: str, split: str) -> str:
    """Return the file by which this rank's data workers tell it what they met.

    Of the same name in every run, so that what a killed run leaves does not gather.
    """
    path = os.path.join(work_dir, f".bad_videos_{split}_{get_rank()}")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    atexit.register(_remove, path, os.getpid())
    return path


def _remove(path: str, owner: int) -> None:
    if os.getpid() == owner:  # and not a forked data worker
        with contextlib.suppress(OSError):
            os.unlink(path)


def base_datasets(dataset: Any) -> Iterator[Any]:
    """Yield the datasets inside wrappers such as ConcatDataset and RepeatDataset.

    Args:
        dataset (Dataset): That of a data loader.

    Yields:
        Dataset: Each that has a pipeline.

    Raises:
        UserError: If there is none.
    """
    if hasattr(dataset, "pipeline"):
        yield dataset
        return
    inner = getattr(dataset, "datasets", None) or [getattr(dataset, "dataset", None)]
    for part in inner:
        if part is None:
            raise UserError(
                f"The pipeline of {type(dataset).__name__} cannot be found."
            )
        yield from base_datasets(part)


def _surviving_step(dataset: Any, split: str) -> tuple[SurvivingDecode, list]:
    """Return the dataset's SurvivingDecode, put there if need be, and what precedes."""
    steps = getattr(dataset.pipeline, "transforms", None)
    names = [type(step).__name__ for step in steps or ()]
    if "SurvivingDecode" in names:
        first = names.index("SurvivingDecode")
        return steps[first], steps[:first]
    decoders = [i for i, name in enumerate(names) if DECODER.fullmatch(name)]
    if not decoders or type(dataset).__name__ == "RepeatAugDataset":
        raise UserError(
            f"BadVideosHook cannot make the {SPLIT_NAMES[split]} pipeline of "
            f"{type(dataset).__name__} survive bad files: it works with pipelines that "
            "decode videos or frames by steps such as DecordDecode (here: "
            f"{', '.join(names) or 'no steps'})."
        )
    last = decoders[0]
    readers = [i for i, name in enumerate(names[:last]) if READER.fullmatch(name)]
    first = readers[0] if readers else last
    step = SurvivingDecode(steps[first : last + 1])
    steps[first : last + 1] = [step]
    return step, steps[:first]


def _check_single_labels(datasets: list) -> None:
    if any(getattr(dataset, "multi_class", False) for dataset in datasets):
        raise UserError(
            "BadVideosHook(in_testing='wrong') works with one label per video, and "
            "this dataset has multi_class=True; use in_testing='fail'."
        )
