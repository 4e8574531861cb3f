"""Every block as its formula gives what the block gives, whatever its options."""

import pytest
import torch
from shared_plugins import build, cases, clip
from torch import nn

from polynl_mm.deployment.formulas import with_formulas
from polynl_mm.plugins import NonLocalBlock3d, PolyNL3d, PyramidNL3d

BLOCKS = (NonLocalBlock3d, PolyNL3d, PyramidNL3d)


@pytest.mark.parametrize(
    "plugin, options", [case for case in cases() if case[0] in BLOCKS]
)
@torch.no_grad()
def test_formulas_leave_no_option_out(plugin, options):
    block = build(plugin, options)
    network = nn.Sequential(block).eval()
    for buffer in network.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.2, 0.8)
    formulas, x = with_formulas(network), clip(4)
    assert type(formulas[0]) is not plugin and network[0] is block
    assert torch.allclose(formulas(x), network(x), rtol=1e-9, atol=1e-9)
