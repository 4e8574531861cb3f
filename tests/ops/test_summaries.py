"""Whoever shares nothing pays nothing for it: a few questions, whatever the clip."""

import sys
from collections import Counter

import pytest
import torch
from shared_plugins import build, cases, clip

from polynl_mm.ops import summaries


def questions(block, x):
    """Count what a training step calls of the interface."""
    asked = Counter()

    def count(frame, event, _):
        if event == "call" and frame.f_code.co_filename == summaries.__file__:
            asked[frame.f_code.co_name] += 1

    torch.manual_seed(0)
    before = sys.getprofile()
    sys.setprofile(count)
    try:
        block(x.requires_grad_()).square().sum().backward()
    finally:
        sys.setprofile(before)
    return asked


@pytest.mark.parametrize("plugin, options", cases())
def test_nobody_is_asked_for_a_summary(plugin, options):
    block = build(plugin, options)
    for frames in (4, 64):
        asked = questions(block, clip(frames))
        assert set(asked) <= {"holder", "gathered"}
        assert asked.total() <= 12, asked  # of 0.1 microseconds each


def test_what_is_gathered_from_nobody_is_not_copied():
    x = torch.ones(1, 2, 3)
    assert summaries.gathered(None, x, x)[0] is x
