"""Gradient checkpointing and synchronised norms, with plugins among the blocks."""

import pytest
import torch
from mmengine.model import convert_sync_batchnorm
from small_backbones import build

from polynl_mm import Plugin

SHAPE = (2, 3, 2, 32, 32)


def count_runs(**entry):
    """Return how often a plugin runs in a step of a backbone that checkpoints."""
    plugin = dict(cfg=dict(type="PolyNL3d"), stages=(False, True, True, False), **entry)
    torch.manual_seed(0)
    backbone = build("ResNet3dSlowOnly", [plugin], depth=18, with_cp=True)
    runs = []
    for module in backbone.modules():
        if isinstance(module, Plugin):
            module.register_forward_pre_hook(lambda *_: runs.append(1))
    plugins = sum(isinstance(module, Plugin) for module in backbone.modules())
    backbone(torch.randn(SHAPE).requires_grad_()).square().mean().backward()
    return len(runs) / plugins


def test_plugins_after_blocks_stay_outside_of_checkpoints():
    assert count_runs(blocks="alternate") == 1


def test_plugins_inside_of_blocks_are_computed_again():
    assert count_runs(blocks="alternate", position="after_conv2") == 2


@pytest.mark.parametrize("position", ["after_block", "after_conv2"])
def test_checkpointing_changes_no_gradient(position):
    plugin = dict(
        cfg=dict(type="PolyNL3d", zero_init=False),
        stages=(False, True, True, False),
        position=position,
    )
    gradients = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        backbone = build(
            "ResNet3dSlowOnly", [plugin], depth=18, with_cp=with_cp
        ).double()
        x = torch.randn(SHAPE, dtype=torch.float64, requires_grad=True)
        backbone(x).square().mean().backward()
        gradients.append([p.grad for p in backbone.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(checkpointed, plain, rtol=1e-8, atol=1e-12)


def test_sync_bn_reaches_the_norms_of_plugins():
    plugin = dict(cfg=dict(type="SpectralNL3d"), blocks="alternate")
    backbone = build("ResNet3dSlowOnly", [plugin], depth=18)
    converted = convert_sync_batchnorm(backbone, "torch")
    norms = [
        m
        for plugin in converted.modules()
        if isinstance(plugin, Plugin)
        for m in plugin.modules()
        if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)
    ]
    assert norms and all(isinstance(m, torch.nn.SyncBatchNorm) for m in norms)
    converted.eval()
    assert converted(torch.randn(SHAPE)).isfinite().all()
