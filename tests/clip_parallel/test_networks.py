"""Networks whose clips processes share equal one process; what cannot is refused."""

import functools
import math
import os

import pytest
import torch
from clip_cases import CASES, PLUGIN_CASES
from clip_groups import run_group
from small_backbones import build
from torch import nn

from polynl_mm.clip_parallel.networks import clip_parallel_network
from polynl_mm.clip_parallel.shares import Share, sharing
from polynl_mm.user_errors import UserError

TOLERANCE = 1e-8
TWO, FOUR = 2, 4


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Return what cases found, run together once for each number of processes."""

    @functools.cache
    def run(count: int, plugins: bool) -> dict:
        folder = tmp_path_factory.mktemp(f"shared by {count}")
        return run_group(count, folder, PLUGIN_CASES if plugins else CASES)

    return run


SLOW = pytest.mark.slow
# Minutes on two cores, where four processes are no other code than two.
EXHAUSTIVE = pytest.mark.skipif(
    not os.environ.get("POLYNL_EXHAUSTIVE"),
    reason="takes minutes: set POLYNL_EXHAUSTIVE=1",
)
COUNTS = [TWO, pytest.param(FOUR, marks=[SLOW, EXHAUSTIVE])]


@pytest.mark.parametrize(
    "case", [*CASES, *(pytest.param(c, marks=SLOW) for c in PLUGIN_CASES)]
)
@pytest.mark.parametrize("count", COUNTS)
def test_outputs_gradients_and_statistics_equal_one_process(found, count, case):
    difference = found(count, case in PLUGIN_CASES)[case]
    assert not isinstance(difference, str), difference
    assert difference < TOLERANCE and not math.isnan(difference)


def imagined(count: int) -> Share:
    """Return a share whose other ranks are only imagined."""
    return Share(0, count, tuple(range(count)), None)


def run_shared(network, frames, count) -> None:
    with sharing(imagined(count)), clip_parallel_network(network, count):
        network(torch.zeros(1, 3, frames // count, 32, 32))


def test_length_that_does_not_divide_is_refused_with_those_that_do():
    strides = dict(conv1_stride_t=2, pool1_stride_t=2)  # and the pool after a stage
    run_shared(build("ResNet3d", **strides), 16, 2)
    with pytest.raises(UserError, match=r"clip of 24 .* 16 divides.*16 or 32"):
        run_shared(build("ResNet3d", **strides), 24, 2)
    with pytest.raises(UserError, match=r"clip of 20 .* over 2 .* 8 divides.*16 or 24"):
        run_shared(build("ResNet3dSlowFast"), 20, 2)


class MeanOverTime(nn.Module):
    """Mixes time, and nobody knows."""

    def forward(self, x):
        return x - x.mean(2, keepdim=True)


@pytest.mark.parametrize(
    "layer, said",
    [
        (MeanOverTime(), r"1 is a \S*MeanOverTime, .* not known"),
        (nn.ConvTranspose3d(3, 3, 3), r"1 is a \S*ConvTranspose3d, .* not known"),
        (nn.Conv3d(3, 3, 3), r"temporal kernel of 3 with a padding of 0"),
        (nn.Conv3d(3, 3, 3, padding=1, padding_mode="circular"), "'circular'"),
        (nn.MaxPool3d(2, ceil_mode=True), "ceil_mode"),
        (nn.AvgPool3d(3, 1, 1, count_include_pad=False), "leaves padded frames out"),
        (nn.AdaptiveAvgPool3d((3, 1, 1)), "pools to 3 frames"),
    ],
)
def test_what_mixes_time_in_another_way_is_refused(layer, said):
    network = nn.Sequential(nn.Conv3d(3, 3, 1), layer)
    with pytest.raises(UserError, match=said):
        run_shared(network, 8, 2)
    assert type(network[0]) is nn.Conv3d  # left as it was


def test_own_modules_can_be_declared():
    class PerFrame(nn.Module):
        framewise = True

        def forward(self, x):
            return x.exp()

    run_shared(nn.Sequential(PerFrame(), nn.BatchNorm3d(3)), 8, 2)


def test_heads_that_do_not_pool_over_time_are_refused():
    from mmaction.registry import MODELS

    model = MODELS.build(
        dict(
            type="Recognizer3D",
            backbone=dict(type="ResNet3dSlowOnly", depth=18, pretrained=None),
            cls_head=dict(
                type="I3DHead", num_classes=2, in_channels=512, spatial_type=None
            ),
        )
    )
    with (
        pytest.raises(UserError, match="does not pool over time"),
        clip_parallel_network(model, 2),
    ):
        pass


def test_nothing_of_it_stays_in_a_network_or_its_state_dict():
    network = build("C2D")
    kinds, keys = [type(m) for m in network.modules()], list(network.state_dict())
    with clip_parallel_network(network, 2):
        assert list(network.state_dict()) == keys
        assert [type(m) for m in network.modules()] != kinds
        x = torch.randn(1, 3, 4, 32, 32)
        shared = network(x)  # where no share is set, as ever
    assert [type(m) for m in network.modules()] == kinds
    assert torch.equal(network(x), shared)
