"""Steps of a pipeline by which a rank reads its own frames of the samples of its group.

Which sample, and every random choice on the way, is the same on all ranks of a group,
and depends on the seed of the run, the epoch and the sample alone.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from polynl_mm.clip_parallel.shares import Share
from polynl_mm.datasets.decoding.surviving_decode import DECODER, SurvivingDecode
from polynl_mm.user_errors import UserError

FORMATS = ("NCTHW", "NCHW")
WHICH = "which_sample"


@dataclass
class Reading:
    """What the steps of a data loader know together.

    Attributes:
        share (Share): This rank's.
        seed (int): The seed of the run.
        epoch (torch.Tensor): The epoch, in memory shared with data workers.
        segments (int | None): Of a network that takes frames as samples, how many are
            one clip; None: all.
    """

    share: Share
    seed: int
    epoch: torch.Tensor
    segments: int | None


class SameChoices:
    """The first step: what is random after it is the same in the ranks of a group.

    Args:
        reading (Reading): Of the data loader.
        dataset (int): Which of the loader's datasets this is in.
    """

    def __init__(self, reading: Reading, dataset: int):
        self.reading, self.dataset = reading, dataset
        self.visits: dict[int, int] = {}

    def __call__(self, results: dict) -> dict:
        """Seed Python, numpy and torch for this sample."""
        index = int(results["sample_idx"])
        epoch = int(self.reading.epoch)
        if WHICH not in results:
            # Where there are no epochs, a sample comes again and again.
            visit = self.visits[index] = self.visits.get(index, -1) + 1
            results[WHICH] = (self.dataset, index, visit if epoch < 0 else 0)
        seeds = [self.reading.seed, max(epoch, 0), *results[WHICH], index]
        mixed = np.random.SeedSequence(seeds).generate_state(3)
        random.seed(int(mixed[0]))
        np.random.seed(int(mixed[1]))
        torch.manual_seed(int(mixed[2]))
        return results


class OwnFrames:
    """After the frames are chosen: keep those that this rank holds.

    Args:
        reading (Reading): Of the data loader.
    """

    def __init__(self, reading: Reading):
        self.reading = reading

    def __call__(self, results: dict) -> dict:
        """Keep this rank's share of each clip's frames.

        Raises:
            UserError: If a clip's frames do not divide by the ranks.
        """
        share, clip_len = self.reading.share, results["clip_len"]
        chosen = np.asarray(results["frame_inds"]).reshape(-1)
        frames = clip_len
        if clip_len == 1:  # of a network that takes frames as samples
            frames = self.reading.segments or len(chosen)
            if len(chosen) % frames:
                raise UserError(
                    f"Clips cannot be shared over ranks: a sample has {len(chosen)} "
                    f"frames, which are no clips of {frames} segments."
                )
        _check_length(frames, share.count)
        start, end = share.cut(frames)
        own = chosen.reshape(-1, frames)[:, start:end]
        results["frame_inds"] = own.reshape(-1)
        if clip_len == 1:
            results["num_clips"] = own.size
        else:
            results["clip_len"] = end - start
        return results


def _check_length(frames: int, ranks: int) -> None:
    """Refuse a clip that ranks cannot share equally, whatever the network."""
    if frames % ranks:
        below = frames - frames % ranks
        raise UserError(
            f"A clip of {frames} frames cannot be shared over {ranks} ranks; take a "
            f"multiple of {ranks}, such as "
            f"{f'{below} or ' if below else ''}{below + ranks}."
        )


class SayWhich:
    """The packing step, whose samples say which they are: see :func:`which`.

    Args:
        pack (Callable): The step itself.
    """

    def __init__(self, pack: Callable):
        self.pack = pack

    def __call__(self, results: dict) -> dict:
        """Pack a sample."""
        label = (*results[WHICH], int(results.get("draws", 0)))
        packed = self.pack(results)
        packed["data_samples"].set_metainfo({WHICH: label})
        return packed


def which(data_sample) -> tuple[int, int, int, int]:
    """Return which sample this is: its dataset, index, visit, and replacement.

    Args:
        data_sample (ActionDataSample): From a pipeline with :class:`SayWhich`.

    Returns:
        tuple[int, int, int, int]: The last is 0 where the sample itself was read, else
        how many were drawn to replace it.
    """
    return data_sample.metainfo[WHICH]


def read_own_frames(dataset, number: int, reading: Reading) -> None:
    """Put the steps into the pipeline of a dataset; in place.

    Args:
        dataset (Dataset): MMAction2's.
        number (int): Which of the data loader's datasets it is.
        reading (Reading): Of the data loader.

    Raises:
        UserError: If the pipeline is of another kind.
    """
    steps = dataset.pipeline.transforms
    names = [type(step).__name__ for step in steps]
    formats = [getattr(step, "input_format", None) for step in steps]
    survivor = next((s for s in steps if isinstance(s, SurvivingDecode)), None)
    inner = steps if survivor is None else survivor.steps
    places = [i for i, s in enumerate(inner) if DECODER.fullmatch(type(s).__name__)]
    if (
        len(places) != 1
        or "PackActionInputs" not in names
        or not any(f in FORMATS for f in formats)
        or type(dataset).__name__ == "RepeatAugDataset"
    ):
        raise UserError(
            "Clips cannot be shared over ranks: the pipeline of "
            f"{type(dataset).__name__} ({', '.join(names)}) does not decode frames, "
            f"format them as {' or '.join(FORMATS)}, and pack them."
        )
    for step in inner:  # here rather than in a data worker
        clip_len = getattr(step, "clip_len", None)
        if isinstance(clip_len, int):
            segments = reading.segments or getattr(step, "num_clips", 1)
            frames = segments if clip_len == 1 else clip_len
            _check_length(frames, reading.share.count)
    pack = names.index("PackActionInputs")
    steps[pack] = SayWhich(steps[pack])
    inner.insert(places[0], OwnFrames(reading))
    steps.insert(0, SameChoices(reading, number))
