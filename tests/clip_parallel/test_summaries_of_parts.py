"""Plugins that are given a clip part by part give what they make of the whole."""

from contextlib import suppress

import pytest
import torch
from shared_plugins import build, cases, clip
from torch import nn

from polynl_mm.clip_parallel.summaries_of_parts import ReachedError, SummariesOfParts
from polynl_mm.plugins import CrissCross3d, NonLocalBlock3d
from polynl_mm.user_errors import UserError

# First and last frame of each part's own.
OWN = [(0, 5), (5, 6), (6, 8)]


def _network(plugin, options):
    blocks = (build(plugin, options, seed) for seed in range(2))
    return nn.Sequential(*blocks).eval()


def _read(network, x):
    """Return what two blocks make of x in parts with two frames more on both sides."""
    blocks = SummariesOfParts(network, {"0": 1, "1": 1})
    for wanted in (*blocks.passes, None):
        outputs = []
        for first, last in OWN:
            margin = min(2, first)
            part = x[:, :, first - margin : last + 2]
            own = slice(margin, margin + last - first)
            reading = blocks.reading(wanted, lambda stride, own=own: own)
            with suppress(ReachedError), reading:
                outputs.append(network(part)[:, :, own])
    return torch.cat(outputs, dim=2), blocks.passes


@pytest.mark.parametrize(
    ("plugin", "options"), cases(), ids=lambda v: getattr(v, "__name__", str(v))
)
@torch.no_grad()
def test_part_by_part_equals_the_whole(plugin, options):
    network, x = _network(plugin, options), clip(8)
    try:
        with torch.device("meta"):  # nothing is made elsewhere than the network is
            y, _ = _read(network, x)
    except UserError as error:
        assert f"The plugin 0 ({plugin.__name__}) compares" in str(error)
        assert _compares(plugin, options)
    else:
        whole = network(x)
        error = (y - whole).abs().max() / whole.abs().max()
        assert error < 1e-10
        assert not _compares(plugin, options)


def _compares(plugin, options):
    axes = options.get("axes", "spacetime")
    if axes == "space":
        return False
    if plugin is NonLocalBlock3d:
        linear = options.get("mode") == "dot_product" and "pool_size" not in options
        return axes == "time" or not linear
    if plugin.__name__ in ("DoubleAttention3d", "EfficientAttention3d"):
        return axes == "time"
    softmax = options.get("affinity") in ("softmax", "whitened")
    return plugin.__name__ in ("CrissCross3d", "NonLocalStage3d") or softmax


def test_every_sum_has_its_pass():
    blocks = [build(CrissCross3d, dict(axes="space")), *_network(*cases()[0])]
    names = {"0": 1, "1": 1, "2": 1}
    assert SummariesOfParts(nn.Sequential(*blocks), names).passes == ["1", "2"]
