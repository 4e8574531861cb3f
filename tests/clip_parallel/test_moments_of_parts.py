"""Poly-NL blocks that are given a clip in parts, against the clip at once."""

from contextlib import suppress
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import nn

from polynl_mm.clip_parallel.moments_of_parts import MomentsOfParts, ReachedError
from polynl_mm.plugins import PolyNL3d
from polynl_mm.user_errors import UserError

BORDERS = (0, 3, 4, 11)  # parts of unequal length


def own(first: int, last: int, carried: int, stride: int) -> slice:
    return slice(first - carried, last - carried)


@pytest.mark.parametrize("axes", ["spacetime", "time"])
@pytest.mark.parametrize("options", [{}, {"reduction": 2, "heads": 2}], ids=str)
@torch.no_grad()
def test_parts_equal_the_clip(axes, options):
    torch.manual_seed(0)
    network = nn.Sequential(
        *(PolyNL3d(8, axes=axes, zero_init=False, **options) for _ in range(2))
    )
    network.double().eval()
    clip = torch.randn(2, 8, BORDERS[-1], 3, 2).double()
    whole = network(clip)
    blocks = MomentsOfParts(network, {"0": 1, "1": 1})
    assert blocks.passes == ["0", "1"]
    found = []
    for wanted in [*blocks.passes, None]:
        for first, last in pairwise(BORDERS):
            start = max(0, first - 2)  # two more frames on both sides
            part = clip[:, :, start : last + 2]
            with (
                blocks.reading(wanted, partial(own, first, last, start)),
                suppress(ReachedError),
            ):
                found.append(network(part)[:, :, first - start : last - start])
    torch.testing.assert_close(torch.cat(found, 2), whole, rtol=1e-10, atol=1e-10)
    # Afterwards the blocks are as they were.
    torch.testing.assert_close(network(clip), whole, rtol=0, atol=0)


def test_what_depends_on_the_length_is_refused():
    network = nn.Sequential(PolyNL3d(8, positions="sine"))
    with pytest.raises(UserError, match="plugin 0 has positions='sine'"):
        MomentsOfParts(network, {"0": 1})
