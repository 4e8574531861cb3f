"""Views from above: turned and mirrored as a square can be, moved by a few pixels."""

import numpy as np
import pytest
from mmengine.registry import TRANSFORMS

from polynl_mm import register
from polynl_mm.datasets.ceiling_views import (
    EightSymmetries,
    RandomQuarterTurn,
    RandomShift,
    turned,
)

register()


@pytest.fixture
def clip():
    draw = np.random.default_rng(0)
    return [draw.integers(0, 255, (6, 6, 3), dtype=np.uint8) for _ in range(4)]


def test_eight_symmetries_are_eight(clip):
    views = {turned(clip[0], s).tobytes() for s in range(8)}
    assert len(views) == 8
    assert np.array_equal(turned(clip[0], 0), clip[0])


def test_all_frames_turn_alike_and_all_turns_happen(clip):
    np.random.seed(0)
    seen = set()
    for _ in range(80):
        done = RandomQuarterTurn().transform(dict(imgs=clip))
        seen.add(done["symmetry"])
        for frame, before in zip(done["imgs"], clip, strict=True):
            assert np.array_equal(frame, turned(before, done["symmetry"]))
            assert frame.flags.c_contiguous
    assert seen == set(range(8))


def test_a_turned_frame_has_its_shape():
    frames = [np.zeros((4, 6, 3), np.uint8)]
    np.random.seed(1)
    shapes = {
        RandomQuarterTurn().transform(dict(imgs=frames))["img_shape"] for _ in range(30)
    }
    assert shapes == {(4, 6), (6, 4)}


def test_shift_moves_and_repeats_the_border():
    frame = np.arange(25).reshape(5, 5)[..., None]
    np.random.seed(0)
    seen = set()
    for _ in range(100):
        moved = RandomShift(1).transform(dict(imgs=[frame]))["imgs"][0][..., 0]
        down, right = 2 - moved[2, 2] // 5, 2 - moved[2, 2] % 5
        seen.add((down, right))
        rows = np.clip(np.arange(5) - down, 0, 4)
        columns = np.clip(np.arange(5) - right, 0, 4)
        assert np.array_equal(moved, frame[rows][:, columns, 0])
    assert seen == {(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)}


def test_testing_views_are_clips_one_after_the_other(clip):
    done = EightSymmetries().transform(dict(imgs=list(clip), num_clips=1, clip_len=4))
    assert len(done["imgs"]) == 32
    for view in range(8):
        for frame in range(4):
            expected = turned(clip[frame], view)
            assert np.array_equal(done["imgs"][4 * view + frame], expected)


def test_refuses_what_cannot_be():
    with pytest.raises(ValueError, match="pixels is a whole number from 1, not 0"):
        RandomShift(0)
    with pytest.raises(ValueError, match="square to be turned, but these are 4 x 6"):
        EightSymmetries().transform(dict(imgs=[np.zeros((4, 6, 3))]))


def test_configs_find_them():
    for name in ("RandomQuarterTurn", "RandomShift", "EightSymmetries"):
        assert TRANSFORMS.get(name) is not None
