"""Layers that do more than their weights tell are called, in every plugin."""

import copy

import pytest
import torch
from shared_plugins import build, cases, clip, result
from torch import nn
from torch.nn.utils import prune

from polynl_mm.plugins import NonLocalBlock3d, PolyNL3d

# Wide clips beside narrow ones: what is read may depend on the positions.
FRAMES = (4, 12)
EVERY = [
    *cases(),
    (NonLocalBlock3d, dict(mode="dot_product", axes="spacetime", bias=False)),
    (PolyNL3d, dict(reduction=2, bias=True)),
]


def layers(block):
    """Every layer that a plugin calls, by its name."""
    norms = nn.modules.batchnorm._BatchNorm, nn.GroupNorm
    kinds = (nn.modules.conv._ConvNd, *norms, nn.Sequential)
    return {n: m for n, m in block.named_modules() if isinstance(m, kinds)}


def convolutions(block):
    """Those of its layers that are convolutions, by name."""
    kind = nn.modules.conv._ConvNd
    return {n: m for n, m in layers(block).items() if isinstance(m, kind)}


def compute(block, x):
    return block(x)


def assert_same(found, expected):
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=1e-9, atol=1e-9), name


@pytest.mark.parametrize("frames", FRAMES)
@pytest.mark.parametrize("plugin, options", EVERY)
def test_hooks_of_every_layer_are_run(plugin, options, frames):
    block, x = build(plugin, options), clip(frames)
    expected = result(copy.deepcopy(block), x, compute)
    seen = set()
    for name, layer in layers(block).items():
        layer.register_forward_hook(lambda *_, name=name: seen.add(name))
    assert_same(result(block, x, compute), expected)
    assert seen == set(layers(block))


@pytest.mark.parametrize("frames", FRAMES)
@pytest.mark.parametrize("plugin, options", EVERY)
def test_weights_set_anew_by_hooks_train(plugin, options, frames):
    block, x = build(plugin, options), clip(frames)
    plain = copy.deepcopy(block)
    for name, layer in convolutions(block).items():
        prune.random_unstructured(layer, "weight", amount=0.5)
        plain.get_submodule(name).weight.data.mul_(layer.weight_mask)
    for _ in range(2):  # the second one shows a graph that was not made anew
        expected, found = result(plain, x, compute), result(block, x, compute)
        assert_same(found, {n: v for n, v in expected.items() if "gradient" not in n})
        with torch.no_grad():
            for network in (plain, block):
                network.zero_grad()


class Adapter(nn.Module):
    """A layer with another beside it, as LoRA has; it shows the weight of the first."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.added = layer, copy.deepcopy(layer)
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x):
        return self.layer(x) + self.added(x)


@pytest.mark.parametrize("frames", FRAMES)
@pytest.mark.parametrize("plugin, options", EVERY)
def test_adapters_around_every_layer_have_their_part(plugin, options, frames):
    block, x = build(plugin, options), clip(frames)
    twice = copy.deepcopy(block)
    for name, layer in convolutions(block).items():
        parent, _, child = name.rpartition(".")
        setattr(block.get_submodule(parent), child, Adapter(layer))
        for parameter in twice.get_submodule(name).parameters():
            parameter.data.mul_(2)
    with torch.no_grad():
        assert torch.allclose(block(x), twice(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mode", ["dot_product", "concatenation"])
def test_what_is_put_behind_a_projection_has_its_part(mode):
    block, x = build(NonLocalBlock3d, dict(mode=mode)).eval(), clip(12)
    plain = copy.deepcopy(block)
    for layer in (block.theta, block.phi):
        layer.add_module("less", nn.Hardtanh(-0.1, 0.1))
    with torch.no_grad():
        assert not torch.allclose(block(x), plain(x))
    block = copy.deepcopy(plain)
    block.theta = nn.ModuleList([block.theta])
    block.theta.forward = block.theta[0].forward
    with torch.no_grad():
        assert torch.allclose(block(x), plain(x), rtol=1e-9, atol=1e-9)
