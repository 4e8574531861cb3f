"""The control without context: weights and place of a block, and nothing else."""

import pytest
import torch
from closeness import assert_close

from polynl_mm.plugins import Pointwise2d, Pointwise3d, PolyNL3d


@pytest.mark.parametrize("norm_cfg", [None, dict(type="BN3d")])
def test_is_a_residual_convolution(norm_cfg):
    plugin = Pointwise3d(8, norm_cfg=norm_cfg, zero_init=False)
    x = torch.randn(2, 8, 3, 4, 5)
    plugin.eval()
    added = plugin.out(x) if norm_cfg is None else plugin.norm(plugin.out(x))
    assert_close(plugin(x), x + added, "y")


def test_no_position_sees_another():
    plugin = Pointwise3d(8, zero_init=False)
    x = torch.randn(1, 8, 3, 4, 5)
    other = x.clone()
    other[:, :, 0] += 1
    assert torch.equal(plugin(x)[:, :, 1:], plugin(other)[:, :, 1:])


def test_starts_as_the_identity_and_takes_images():
    x = torch.randn(2, 8, 4, 5)
    assert torch.equal(Pointwise2d(8)(x), x)


def test_has_no_more_weights_than_a_block():
    count = [
        sum(p.numel() for p in kind(16).parameters())
        for kind in (Pointwise3d, PolyNL3d)
    ]
    assert count[0] < count[1]
