"""Networks of other structures: what is logged as inserted runs, or is refused."""

import logging
import threading

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from torch import nn
from torch.nn.utils import weight_norm

from polynl_mm import NonLocalBlock3d, PolyNL3d, insert_plugins
from polynl_mm.backbones.observed_features import observe_outputs


def conv(inner, out):
    return nn.Sequential(
        nn.Conv3d(inner, out, 1, bias=False), nn.BatchNorm3d(out), nn.ReLU()
    )


class Inception(nn.Module):
    """Branches of several widths, joined: S3D's block."""

    def __init__(self):
        super().__init__()
        self.branch1 = conv(8, 5)
        self.branch2 = nn.Sequential(conv(8, 3), conv(3, 7))
        self.branch3 = nn.Sequential(nn.MaxPool3d(3, 1, 1), conv(8, 4))

    def forward(self, x):
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x)], dim=1)


class Residual(nn.Module):
    """torchvision's block: conv1 and conv2 are Sequentials, conv2 ends in a norm."""

    def __init__(self):
        super().__init__()
        self.conv1 = conv(8, 8)
        self.conv2 = nn.Sequential(nn.Conv3d(8, 8, 1), nn.BatchNorm3d(8))
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(x + self.conv2(self.conv1(x)))


class Dense(nn.ModuleDict):
    """DenseNet's block: a ModuleDict that is called."""

    def __init__(self):
        super().__init__({"layer1": conv(8, 3), "layer2": conv(11, 3)})

    def forward(self, x):
        for layer in self.values():
            x = torch.cat([x, layer(x)], dim=1)
        return x


class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(8, 8, 1)

    def forward(self, x):
        return self.conv(x), x.shape[2:]


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(8, 8, 1)

    def forward(self, x):
        return self.conv(x).flatten(2).mT


class ChannelsLast(Tokens):
    def forward(self, x):
        return self.conv(x).movedim(1, -1)


def network(block):
    return nn.Sequential(nn.Conv3d(3, 8, 1), block)


@pytest.mark.parametrize(
    ("block", "entry", "channels"),
    [
        (Inception(), dict(at=["1"]), 16),
        (Inception(), dict(at=["1.branch2"]), 7),
        (Residual(), dict(at=["1"]), 8),
        (Residual(), dict(at=["1.conv2"]), 8),
        (Dense(), dict(at=["1.layer2"]), 3),
        (nn.ReLU(), dict(at=["1"]), 8),
        (nn.Sequential(nn.Conv3d(8, 6, 1), nn.BatchNorm3d(6)), dict(at=["1"]), 6),
    ],
    ids=["inception", "branch", "block", "norm_last", "dense", "activation", "norm"],
)
def test_what_is_inserted_runs_once_and_starts_as_the_identity(block, entry, channels):
    net = network(block).eval()
    x = torch.randn(2, 3, 4, 5, 6)
    expected = net(x)
    insert_plugins(net, dict(cfg=dict(type="PolyNL3d"), **entry))
    (plugin,) = [m for m in net.modules() if isinstance(m, PolyNL3d)]
    assert plugin.in_channels == channels
    calls = []
    plugin.register_forward_hook(lambda *_: calls.append(1))
    torch.testing.assert_close(net(x), expected)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("block", "sentence"),
    [
        (Several(), r"1 gives a tuple, and a plugin takes one tensor"),
        (Tokens(), r"shape \(2, \d+, 8\), .* tokens, and features with channels last"),
        (
            ChannelsLast(),
            r"shape \(2, 32, .*, 8\), .* channels last",
        ),
        (nn.ModuleList([conv(8, 8)]), r"never called itself"),
        (Dense(), r"1' is a Dense, which runs what it holds"),
    ],
    ids=["tuple", "tokens", "channels_last", "list", "dense"],
)
def test_what_could_not_run_is_refused(block, sentence):
    with pytest.raises(ValueError, match=sentence):
        insert_plugins(network(block), dict(cfg=dict(type="PolyNL3d"), at=["1"]))


def test_dry_run_leaves_the_network_and_the_random_state_alone():
    net = network(Residual()).train()
    weights = {key: value.clone() for key, value in net.state_dict().items()}
    state = torch.get_rng_state()
    seen = observe_outputs(net, ["1"])
    outputs = seen.outputs["1"]
    assert seen.ran and len(outputs) == 2 and all(output.is_meta for output in outputs)
    assert {output.shape[1] for output in outputs} == {8}
    assert torch.equal(torch.get_rng_state(), state) and net.training
    for key, value in net.state_dict().items():
        assert torch.equal(value, weights[key])
    assert not any(module._forward_hooks for module in net.modules())


def locked(block):
    block.lock = threading.Lock()
    return block


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(weight_norm(Residual().conv1[0]), id="set anew by a hook"),
        pytest.param(locked(Residual()), id="not to be copied"),
        pytest.param(nn.Sequential(nn.LazyConv3d(8, 1), Residual()), id="lazy"),
    ],
)
def test_networks_that_cannot_be_tried_take_plugins(block):
    net = nn.Sequential(network(block), Residual())
    net(torch.randn(1, 3, 2, 4, 4)).sum()
    insert_plugins(net, dict(cfg=dict(type="PolyNL3d"), at=["1"]))
    assert net[1].poly_nl.in_channels == 8


def test_hooks_of_others_are_not_run_in_a_trial():
    net, seen = network(Inception()), []
    net[0].register_forward_hook(lambda *given: seen.append(given))
    insert_plugins(net, dict(cfg=dict(type="PolyNL3d"), at=["1"]))
    assert not seen and net[1].poly_nl.in_channels == 16


def test_plugins_that_are_there_are_passed_over_in_a_trial(monkeypatch):
    """Those of quadratic time would take hours at the size of a whole clip."""
    net = nn.Sequential(nn.Conv3d(3, 8, 1), NonLocalBlock3d(8), Inception())
    monkeypatch.setattr(NonLocalBlock3d, "forward", None)
    insert_plugins(net, dict(cfg=dict(type="PolyNL3d"), at=["2"]))
    assert net[2].poly_nl.in_channels == 16


class Uncalled(nn.Module):
    """Runs what is in its block, and never the block."""

    def __init__(self):
        super().__init__()
        self.block = nn.Module()
        self.block.conv1, self.block.conv2 = conv(8, 8), conv(8, 8)

    def forward(self, x):
        return self.block.conv2(self.block.conv1(x))


def test_a_module_that_is_never_called_is_named(caplog, monkeypatch):
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(logger, "level", logging.WARNING)
    logger.addHandler(caplog.handler)
    try:
        for path in ("1.block", "1.block.conv2"):
            plugin = dict(cfg=dict(type="PolyNL3d"), at=[path])
            insert_plugins(network(Uncalled()), plugin)
    finally:
        logger.removeHandler(caplog.handler)
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    (warning,) = warnings
    assert "1.block was not called when the network was tried" in warning


@pytest.mark.parametrize("dims", [2, 3])
def test_frames_of_a_trial_run_make_whole_clips(dims):
    """TANet takes the frames of clips, four each, and no two frames."""
    arguments = dict(depth=50, num_segments=4, pretrained=None, tam_cfg=dict())
    entry = dict(cfg=dict(type=f"PolyNL{dims}d"), stages=(False, True, False, False))
    segments = dict(num_segments=4) if dims == 3 else {}
    init_default_scope("mmaction")
    from mmaction.registry import MODELS

    plugins = dict(entry, **segments)
    model = dict(type="WithPlugins", of="TANet", plugins=plugins, **arguments)
    net = MODELS.build(model)
    assert net.layer2[0].poly_nl.in_channels == 512
    assert net(torch.randn(4, 3, 32, 32)).shape == (4, 2048, 1, 1)
