"""mmcv's non-local blocks inside a model, replaced on the same weights."""

import copy
import logging

import pytest
import torch
from mmcv.cnn.bricks.non_local import NonLocal2d, NonLocal3d
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from torch import nn

from polynl_mm import (
    NonLocalBlock2d,
    NonLocalBlock3d,
    accelerate_non_local,
    insert_plugins,
)

# MMAction2's own non-local configs.
CONFIGS = [
    "i3d/i3d_imagenet-pretrained-r50-nl-dot-product_8xb8-32x2x1-100e_kinetics400-rgb",
    "i3d/i3d_imagenet-pretrained-r50-nl-embedded-gaussian_8xb8-32x2x1-100e_kinetics400-rgb",
    "i3d/i3d_imagenet-pretrained-r50-nl-gaussian_8xb8-32x2x1-100e_kinetics400-rgb",
    "slowonly/slowonly_r50-in1k-pre-nl-embedded-gaussian_8xb16-8x8x1-steplr-150e_kinetics400-rgb",
    "tsm/tsm_imagenet-pretrained-r50-nl-gaussian_8xb16-1x1x8-50e_kinetics400-rgb",
]


@pytest.fixture(autouse=True)
def quiet():
    MMLogger.get_current_instance().setLevel(logging.ERROR)


class Network(nn.Module):
    """One block of each kind, inside other modules."""

    def __init__(self, **arguments):
        super().__init__()
        self.first = nn.Sequential(nn.Conv3d(3, 8, 1), NonLocal3d(8, **arguments))
        self.second = NonLocal2d(8, **arguments)

    def forward(self, x):
        x = self.first(x)
        return self.second(x.flatten(2, 3)).reshape(x.shape)


def wake(model):
    """Move the blocks away from the identity at which they start."""
    torch.manual_seed(0)
    for block in model.modules():
        if isinstance(block, NonLocal2d | NonLocal3d):
            last = block.conv_out.norm if block.conv_out.with_norm else None
            nn.init.normal_((last or block.conv_out.conv).weight, std=0.3)
    return model


@pytest.mark.parametrize(
    "mode", ["gaussian", "embedded_gaussian", "dot_product", "concatenation"]
)
@pytest.mark.parametrize("sub_sample", [False, True])
def test_outputs_weights_and_modes_stay(mode, sub_sample):
    model = wake(Network(mode=mode, sub_sample=sub_sample)).double().eval()
    x = torch.randn(2, 3, 2, 6, 6, dtype=torch.float64)
    expected = model(x)
    weights = dict(model.named_parameters())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.second.g.requires_grad_(False)

    assert accelerate_non_local(model) == 2
    assert isinstance(model.first[1], NonLocalBlock3d) and not model.first[1].training
    assert isinstance(model.second, NonLocalBlock2d)
    assert torch.allclose(model(x), expected, rtol=0, atol=1e-10)
    after = dict(model.named_parameters())
    assert list(after) == list(weights)
    assert all(after[name] is weights[name] for name in weights)
    assert not any(p.requires_grad for p in model.second.g.parameters())

    model(x).sum().backward()
    optimizer.step()
    assert not torch.allclose(model(x), expected)


def test_copies_and_state_dicts_go_on_working():
    model = wake(Network()).eval()
    state = copy.deepcopy(model.state_dict())
    accelerate_non_local(model)
    model.load_state_dict(state, strict=True)
    copied = copy.deepcopy(model)
    x = torch.randn(1, 3, 2, 4, 4)
    assert torch.equal(copied(x), model(x))


def test_hooks_of_a_block_stay_and_so_does_a_plugin_after_it():
    model = wake(Network())
    insert_plugins(model, dict(cfg=dict(type="PolyNL2d"), at=["second"]))
    calls = []
    handles = [
        getattr(model.first[1], f"register_{kind}_hook")(
            lambda *_, kind=kind: calls.append(kind)
        )
        for kind in ("forward_pre", "forward", "full_backward_pre", "full_backward")
    ]
    model.second.poly_nl.register_forward_hook(lambda *_: calls.append("plugin"))
    assert accelerate_non_local(model) == 2
    model(torch.randn(1, 3, 2, 4, 4)).sum().backward()
    assert calls == [
        "forward_pre",
        "forward",
        "plugin",
        "full_backward_pre",
        "full_backward",
    ]
    for handle in handles:
        handle.remove()
    model(torch.randn(1, 3, 2, 4, 4))
    assert calls[5:] == ["plugin"]


def test_models_without_blocks_and_bare_blocks():
    assert accelerate_non_local(nn.Sequential(nn.Conv2d(3, 3, 1))) == 0
    with pytest.raises(ValueError, match="use NonLocalBlock3d with its state dict"):
        accelerate_non_local(NonLocal3d(8))


@pytest.mark.parametrize("name", CONFIGS, ids=lambda name: name.split("/")[1][:48])
def test_mmaction2s_own_models(name):
    from mmengine.config import Config

    config = Config.fromfile(mmaction_config(name))
    init_default_scope("mmaction")
    from mmaction.registry import MODELS

    backbone = config.model.backbone
    backbone.pretrained = None
    flat = "TSM" in backbone.type
    if flat:
        backbone.pretrained2d = False
    model = wake(MODELS.build(backbone))
    model.eval()
    x = torch.randn((8, 3, 64, 64) if flat else (1, 3, 8, 64, 64))
    with torch.no_grad():
        expected = model(x)
        assert accelerate_non_local(model) == 5
        error = (model(x) - expected).abs().max() / expected.abs().max()
    assert error < 1e-5


def mmaction_config(name):
    from polynl_mm.recognizers.configs import find_config

    return find_config(f"mmaction::recognition/{name}.py")
