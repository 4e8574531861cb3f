"""What plugins start with when a backbone initialises its weights, once or again."""

import copy

import pytest
import torch
from mmcv.cnn.bricks.non_local import NonLocal3d
from small_backbones import build
from torch import nn

from polynl_mm.plugins import Plugin

KINDS = {
    "poly_nl": dict(type="PolyNL3d"),
    "norm at zero": dict(type="NonLocalBlock3d", norm_cfg=dict(type="BN3d")),
    "units": dict(type="SpectralNL3d"),
}
PLACE = dict(blocks=((), (1,), (), ()))


def make(kind):
    return build("ResNet3dSlowOnly", dict(PLACE, cfg=KINDS[kind]))


def plugin_of(network, kind=Plugin):
    return next(m for m in network.modules() if isinstance(m, kind))


def assert_starts(network):
    plugin = plugin_of(network)
    assert all(p.isfinite().all() for p in plugin.parameters())
    assert not any((p == 7).all() for p in plugin.parameters())
    x = torch.randn(2, plugin.in_channels, 2, 3, 3)
    assert torch.equal(plugin(x), x)


@pytest.mark.parametrize("kind", KINDS)
def test_made_anew_when_initialised_again(kind):
    """As between the folds of a study."""
    network = make(kind)
    network.init_weights()
    network = copy.deepcopy(network)
    for parameter in network.parameters():
        nn.init.constant_(parameter, 7)
    network.init_weights()
    assert network.conv1.conv.weight.std() > 0
    assert_starts(network)


@pytest.mark.parametrize("kind", KINDS)
def test_made_when_it_was_built_without_numbers(kind):
    with torch.device("meta"):
        network = make(kind)
    network.to_empty(device="cpu")
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.data.fill_(float("nan") if tensor.is_floating_point() else 0)
    network.init_weights()
    assert_starts(network)


def test_weights_stay_the_first_time():
    network = make("poly_nl")
    made = copy.deepcopy(plugin_of(network).state_dict())
    network.init_weights()
    for name, value in plugin_of(network).state_dict().items():
        assert torch.equal(value, made[name])


def test_another_toolkits_plugin_keeps_its_weights():
    cfg = dict(type=NonLocal3d, zeros_init=False)
    network = build("ResNet3dSlowOnly", dict(PLACE, cfg=cfg))
    made = copy.deepcopy(plugin_of(network, NonLocal3d).state_dict())
    network.init_weights()
    network.init_weights()
    for name, value in plugin_of(network, NonLocal3d).state_dict().items():
        assert torch.equal(value, made[name])
