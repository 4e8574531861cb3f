"""Backbones that freeze their norms, with plugins that start by one."""

import copy
import pickle

import pytest
import torch
from small_backbones import BACKBONES, build
from torch import nn

from polynl_mm import insert_plugins
from polynl_mm.plugins import NonLocalBlock2d, NonLocalBlock3d

FREEZING = {
    "ResNet3dCSN": dict(norm_eval=True, bn_frozen=True),
    "ResNet": dict(partial_bn=True),
    "ResNetTSM": dict(partial_bn=True),
}
PLUGINS = (NonLocalBlock2d, NonLocalBlock3d)


def make(name):
    dims = 3 if BACKBONES[name][2].get("num_segments") or "3d" in name else 2
    cfg = dict(type=f"NonLocalBlock{dims}d", norm_cfg=dict(type=f"BN{dims}d"))
    return build(name, dict(BACKBONES[name][2], cfg=cfg), **FREEZING[name])


def plugins_of(network):
    return [m for m in network.modules() if isinstance(m, PLUGINS)]


@pytest.mark.parametrize(
    "copier",
    [lambda m: m, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))],
    ids=["itself", "deep copy", "pickle"],
)
@pytest.mark.parametrize("name", FREEZING)
def test_plugins_learn_where_norms_are_frozen(name, copier):
    network = copier(make(name))
    network.train()
    plain = [
        m
        for n, m in network.named_modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and "non_local" not in n
    ]
    assert not all(m.weight.requires_grad for m in plain)
    learners = [p for plugin in plugins_of(network) for p in plugin.parameters()]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(2):  # at the first step the norm alone has a gradient
        before = [p.detach().clone() for p in learners]
        optimizer.zero_grad()
        y = network(torch.randn(BACKBONES[name][1]))
        (y if isinstance(y, torch.Tensor) else y[-1]).square().mean().backward()
        optimizer.step()
        network.train()
    moved = [not torch.equal(a, b) for a, b in zip(before, learners, strict=True)]
    assert any(moved) and all(p.requires_grad for p in learners)


def test_what_is_frozen_in_a_plugin_by_its_user_stays_so():
    network = make("ResNet3dCSN")
    plugin = plugins_of(network)[0]
    plugin.theta.requires_grad_(False)
    network.train()
    learning = {n for n, p in plugin.named_parameters() if p.requires_grad}
    assert learning == {n for n, _ in plugin.named_parameters() if "theta" not in n}


def test_a_backbone_within_a_network_freezes_no_plugin_either():
    network = nn.Module()
    network.backbone = build("ResNet3dCSN", **FREEZING["ResNet3dCSN"])
    cfg = dict(type="NonLocalBlock3d", norm_cfg=dict(type="BN3d"))
    insert_plugins(network, dict(cfg=cfg, at=["backbone.layer2.0"]))
    for set_to_training in (network.train, network.backbone.train):
        set_to_training()
        (plugin,) = plugins_of(network)
        assert all(p.requires_grad for p in plugin.parameters())


def test_a_network_may_be_cut_afterwards():
    network = make("ResNet3dCSN")
    network.layer3 = nn.Identity()
    (name,) = [n for n, _ in network.layer2[1].named_children() if "non_local" in n]
    delattr(network.layer2[1], name)
    for change in (network.train, network.eval, network.init_weights):
        change()
    assert plugins_of(network)
