"""Each rank reads its own frames, and every random choice is its group's."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from polynl_mm.clip_parallel.own_frames import (
    OwnFrames,
    Reading,
    SameChoices,
    read_own_frames,
)
from polynl_mm.clip_parallel.shares import Share, group_of
from polynl_mm.user_errors import UserError


def reading(index=0, count=2, seed=3, epoch=0, segments=None) -> Reading:
    share = Share(index, count, tuple(range(count)), None)
    return Reading(share, seed, torch.tensor(epoch), segments)


def choices(step: SameChoices, sample: int) -> tuple:
    step({"sample_idx": sample})
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_random_choices_are_of_the_seed_the_epoch_and_the_sample():
    first = choices(SameChoices(reading(0), 0), 5)
    random.seed(99)
    torch.rand(7)
    assert choices(SameChoices(reading(1), 0), 5) == first
    others = [
        choices(SameChoices(reading(), 0), 6),
        choices(SameChoices(reading(), 1), 5),
        choices(SameChoices(reading(seed=4), 0), 5),
        choices(SameChoices(reading(epoch=1), 0), 5),
    ]
    assert first not in others and len(set(others)) == 4


def test_sample_that_comes_again_without_epochs_is_drawn_anew():
    one, other = (SameChoices(reading(i, epoch=-1), 0) for i in range(2))
    found = [choices(one, 5), choices(one, 5), choices(one, 6), choices(one, 5)]
    assert len(set(found)) == 4
    assert [choices(other, i) for i in (5, 5, 6, 5)] == found


def frames(index, count, clip_len, num_clips, segments=None) -> dict:
    results = dict(
        frame_inds=np.arange(clip_len * num_clips) * 10,
        clip_len=clip_len,
        num_clips=num_clips,
    )
    return OwnFrames(reading(index, count, segments=segments))(results)


def test_every_clip_of_several_is_shared():
    parts = [frames(i, 2, clip_len=4, num_clips=3) for i in range(2)]
    assert [p["clip_len"] for p in parts] == [2, 2]
    assert [p["num_clips"] for p in parts] == [3, 3]
    assert parts[0]["frame_inds"].tolist() == [0, 10, 40, 50, 80, 90]
    assert parts[1]["frame_inds"].tolist() == [20, 30, 60, 70, 100, 110]


def test_segments_are_shared_clip_by_clip():
    # Two samplings of four segments: the network sees two clips.
    part = frames(1, 2, clip_len=1, num_clips=8, segments=4)
    assert part["frame_inds"].tolist() == [20, 30, 60, 70]
    assert (part["clip_len"], part["num_clips"]) == (1, 4)
    part = frames(0, 2, clip_len=1, num_clips=8)  # a consensus over all of them
    assert part["frame_inds"].tolist() == [0, 10, 20, 30]


def test_lengths_that_do_not_divide_are_refused_with_those_that_do():
    with pytest.raises(UserError, match=r"clip of 5 frames .* 2 ranks.* 4 or 6"):
        frames(0, 2, clip_len=5, num_clips=1)
    with pytest.raises(UserError, match=r"clip of 3 frames .* 4 ranks.* as 4\."):
        frames(0, 4, clip_len=1, num_clips=3)
    with pytest.raises(UserError, match="10 frames, which are no clips of 8 segments"):
        frames(0, 2, clip_len=1, num_clips=10, segments=8)


def test_pipelines_of_another_kind_are_refused():
    dataset = SimpleNamespace(pipeline=SimpleNamespace(transforms=[len]))
    with pytest.raises(UserError, match="does not decode frames"):
        read_own_frames(dataset, 0, reading())


def test_groups_are_ranks_in_a_row():
    places = [group_of(rank, 6, 2) for rank in range(6)]
    assert places == [(0, 3), (0, 3), (1, 3), (1, 3), (2, 3), (2, 3)]
