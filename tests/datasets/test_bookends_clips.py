"""What clips show: balance, independence of the label, refused parameters."""

import collections
import dataclasses

import numpy as np
import pytest

from polynl_mm.datasets.bookends_clips import (
    LEVELS,
    PALETTE,
    BookendsParameters,
    Clip,
    discs_of,
    distractors_of,
    plan_clips,
    render_clip,
)

SMALL = BookendsParameters(train=8, val=4, frames=6, size=32, gap=2, seed=3)


@pytest.mark.parametrize("num_colours", [2, 3, 4, 8])
@pytest.mark.parametrize("split", ["train", "val"])
def test_no_marginal_gives_the_label_away(num_colours, split):
    colours = list(PALETTE)[:num_colours]
    turns = 2 * num_colours * (num_colours - 1)
    parameters = BookendsParameters(train=3 * turns, val=2 * turns, colours=colours)
    clips = plan_clips(parameters, split)

    counts = collections.Counter(
        (which, getattr(clip, which), clip.label)
        for clip in clips
        for which in ("first", "last")
    )
    expected = len(clips) // 2 // num_colours
    assert counts == {
        (which, colour, label): expected
        for which in ("first", "last")
        for colour in colours
        for label in (0, 1)
    }
    assert all((clip.first == clip.last) == bool(clip.label) for clip in clips)


@pytest.mark.parametrize("train", [2, 3, 17, 50])
def test_labels_are_balanced_for_any_number_of_clips(train):
    labels = [c.label for c in plan_clips(BookendsParameters(train=train), "train")]
    assert abs(2 * sum(labels) - train) <= 1


def test_pixels_other_than_the_colour_do_not_depend_on_the_label():
    # The same clip with another label: only the disc of the last half changes.
    parameters = BookendsParameters(frames=8, gap=2)
    same = Clip("train", 5, 1, "red", "red")
    different = Clip("train", 5, 0, "red", "blue")
    changed = (render_clip(parameters, same) != render_clip(parameters, different)).any(
        -1
    )
    assert not changed[:5].any()
    assert changed[5:].any((1, 2)).all()
    assert changed[5:].mean() < 0.2


def test_level_two_adds_small_discs_to_level_one():
    parameters = BookendsParameters(frames=8, gap=2)
    harder = dataclasses.replace(parameters, level=2)
    for clip in plan_clips(parameters, "train")[:40]:
        discs, small = (f(harder, clip) for f in (discs_of, distractors_of))
        assert discs == discs_of(parameters, clip)
        assert distractors_of(parameters, clip) == () and len(small) == 4
        assert max(d.radius for d in small) < min(d.radius for d in discs) * 2 / 3
        for own, others in (discs[0], small[:2]), (discs[1], small[2:]):
            assert {own.colour} & {d.colour for d in others} == set()
            assert all(d.centres.keys() == own.centres.keys() for d in others)
        # Drawn below the large discs, and nowhere but at their places.
        easy, hard = (render_clip(p, clip).astype(int) for p in (parameters, harder))
        changed = (easy != hard).any(-1)
        assert changed.any((1, 2)).tolist() == [True] * 3 + [False] * 2 + [True] * 3
        allowed = np.zeros_like(changed)
        rows, columns = np.mgrid[:64, :64]
        for disc in small:
            for when, (row, column) in disc.centres.items():
                near = np.hypot(rows - row, columns - column) < disc.radius + 1
                allowed[when] |= near
        for disc in discs:
            for when, (row, column) in disc.centres.items():
                inside = np.hypot(rows - row, columns - column) < disc.radius - 1
                allowed[when] &= ~inside
        assert not (changed & ~allowed).any()


def test_small_discs_say_nothing_of_the_label():
    parameters = BookendsParameters(level=2, frames=2, gap=0, size=32, train=4000)
    seen = {0: collections.Counter(), 1: collections.Counter()}
    lures = 0
    for clip in plan_clips(parameters, "train"):
        small = [disc.colour for disc in distractors_of(parameters, clip)]
        # A frame's discs: the large one, and the small ones beside it.
        for own, others in (clip.first, small[:2]), (clip.last, small[2:]):
            seen[clip.label].update((own, other) for other in others)
        lures += clip.label == 0 and (clip.last in small[:2] or clip.first in small[2:])
    counts = [np.array([seen[label][key] for key in sorted(seen[0])]) for label in seen]
    assert len(counts[0]) == 8 * 7 and seen[0].keys() == seen[1].keys()
    # 8000 draws over 56 pairs in each class: 143 +- 12.
    assert all((np.abs(count - 8000 / 56) < 5 * 12).all() for count in counts)
    assert lures > 700  # of 2000: 1 - (6/7) ** 4 would be 46 %


@pytest.mark.parametrize("level", LEVELS)
def test_frame_statistics_of_the_classes_agree(level):
    parameters = BookendsParameters(train=96, frames=2, gap=0, size=32, level=level)
    means = {0: [], 1: []}
    for clip in plan_clips(parameters, "train"):
        means[clip.label].append(render_clip(parameters, clip).mean((1, 2)))
    means = {label: np.array(value) for label, value in means.items()}  # (clips, T, 3)
    spread = np.concatenate([means[0], means[1]]).std(0) * np.sqrt(2 / 48)
    assert (np.abs(means[0].mean(0) - means[1].mean(0)) < 4 * spread).all()


def test_train_and_val_clips_differ():
    train, val = (plan_clips(SMALL, split)[0] for split in ("train", "val"))
    assert (render_clip(SMALL, train) != render_clip(SMALL, val)).any()


@pytest.mark.parametrize(
    "bad, message",
    [
        ({"train": 1}, "train must be 2 or more, not 1"),
        ({"val": 0}, "val must be 2 or more, not 0"),
        ({"frames": 1}, "frames must be 2 or more, not 1"),
        ({"gap": -1}, "gap must be 0 or more, not -1"),
        ({"gap": 15}, "at most 14 of 16 frames, not 15"),
        ({"seed": -1}, "seed must be 0 or more, not -1"),
        ({"level": 3}, "level must be 1 or 2, not 3"),
        ({"size": 48}, "size 48 .* decord"),
        ({"size": 72}, "size 72 .* decord"),
        ({"size": 65}, "even number from 32 to 512, not 65"),
        ({"size": 1000}, "even number from 32 to 512, not 1000"),
        ({"colours": ["red", "gren"]}, "'gren', known are red, green"),
        ({"colours": ["red"]}, "two or more different names, not red"),
        ({"colours": ["red", "red"]}, "two or more different names, not red red"),
    ],
)
def test_bad_parameters_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        BookendsParameters(**bad)
