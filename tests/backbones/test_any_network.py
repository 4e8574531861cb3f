"""Networks of other structures: what is logged as inserted runs, or is refused."""

import pytest
import torch
from torch import nn

from polynl_mm import PolyNL3d, insert_plugins
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
    outputs = observe_outputs(net, "1")
    assert len(outputs) == 2 and all(output.is_meta for output in outputs)
    assert {output.shape[1] for output in outputs} == {8}
    assert torch.equal(torch.get_rng_state(), state) and net.training
    for key, value in net.state_dict().items():
        assert torch.equal(value, weights[key])
    assert not any(module._forward_hooks for module in net.modules())
