"""Parts of a clip: each frame once, and enough beside them."""

import numpy as np
import pytest

from polynl_mm.recognizers.clip_parts import parts_of


@pytest.mark.parametrize("seed", range(30))
def test_parts_cover_the_clip_once(seed):
    rng = np.random.default_rng(seed)
    stride = int(rng.choice([1, 2, 4]))
    frames = int(rng.integers(1, 60))
    own, margin = stride * rng.integers(1, 6), stride * rng.integers(0, 5)
    seen = {1: [], stride: []}
    parts = list(parts_of(iter(range(frames)), own, margin))
    for part in parts:
        stop = part.start + len(part.images)
        assert part.images == list(range(part.start, stop))
        assert part.start == max(0, part.first - margin) and part.start % stride == 0
        assert stop == min(frames, part.first + own + margin)
        assert part.final == (part is parts[-1])
        for step, found in seen.items():
            found += part.images[::step][part.own(step)]
    for step, found in seen.items():
        assert found == list(range(0, frames, step))


def test_a_clip_that_ends_with_a_part():
    *_, last = parts_of(iter(range(8)), 4, 0)
    assert last.final and last.images == [4, 5, 6, 7]
    assert not list(parts_of(iter(()), 4, 2))
