"""How far modules look over time, against what changes when a frame changes."""

import pytest
import torch
from torch import nn

from polynl_mm.clip_parallel.temporal_reach import temporal_reach
from polynl_mm.plugins import PolyNL3d
from polynl_mm.user_errors import UserError


def chain(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers).eval().double()


def conv(kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1):
    return nn.Conv3d(
        2, 2, (kernel, 1, 1), (stride, 1, 1), (padding, 0, 0), (dilation, 1, 1)
    )


NETWORKS = {
    "one frame": [conv(1), nn.BatchNorm3d(2), nn.ReLU()],
    "3, 5": [conv(3, padding=1), conv(5, padding=2)],
    "strides": [conv(5, 2, 2), nn.MaxPool3d((3, 1, 1), (2, 1, 1), (1, 0, 0)), conv(3)],
    "pool by 2": [conv(3, padding=1), nn.AvgPool3d((2, 1, 1)), conv(3, padding=1)],
    "dilated": [conv(3, padding=2, dilation=2), conv(3, 2, 1)],
}


@pytest.mark.parametrize("layers", NETWORKS.values(), ids=NETWORKS)
@torch.no_grad()
def test_parts_with_what_they_carry_give_the_clip(layers):
    torch.manual_seed(0)
    network = chain(*layers)
    with torch.device("meta"):  # another than the network's, as a GPU's is
        reach = temporal_reach(network, 2, (2, 2))
    clip = torch.randn(1, 2, 96, 2, 2).double()
    whole = network(clip)
    (stride,) = reach.outputs
    first, last = 32, 48
    part = network(clip[:, :, first - reach.frames : last + reach.frames])
    own = part[:, :, reach.frames // stride :][:, :, : (last - first) // stride]
    expected = whole[:, :, first // stride : last // stride]
    torch.testing.assert_close(own, expected, rtol=1e-12, atol=1e-12)
    if reach.frames:  # a stride less is too little, or the reach was no multiple
        less = reach.frames - 2 * reach.stride
        if less >= 0:
            part = network(clip[:, :, first - less : last + less])
            own = part[:, :, less // stride :][:, :, : (last - first) // stride]
            same = own.shape == expected.shape and torch.allclose(own, expected)
            assert not same


def test_plugins_are_found_with_their_rates():
    network = chain(conv(3, 2, 1), PolyNL3d(2), conv(3, 2, 1), PolyNL3d(2))
    reach = temporal_reach(network, 2, (4, 4))
    assert reach.plugins == {"1": 2, "3": 4} and reach.stride == 4
    assert reach.frames == 4  # 1, and 1 at half the rate, rounded up


class Shift(nn.Module):
    def forward(self, x):
        return x.roll(1, 2)


@pytest.mark.parametrize(
    "layer, name",
    [
        (Shift(), r"1 \(Shift\)"),
        (nn.GroupNorm(1, 2), r"1 \(GroupNorm\)"),
        (nn.AdaptiveAvgPool3d(1), r"1 \(AdaptiveAvgPool3d\)"),
        (nn.Conv3d(2, 2, 3, padding=1, padding_mode="circular"), "1 pads .*circular"),
        (nn.Conv3d(2, 2, 3, padding="same"), "1 pads .*'same'"),
    ],
)
def test_what_mixes_time_otherwise_is_refused_by_name(layer, name):
    with pytest.raises(UserError, match=f"The module {name}"):
        temporal_reach(chain(conv(1), layer).float(), 2, (4, 4))
