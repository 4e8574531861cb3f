"""Entries of ``plugins`` that cannot be met: one sentence that names what and where."""

import pytest
import torch
from small_backbones import FIVE, OutsideNetwork, build
from torch import nn

from polynl_mm import PolyNL2d, PolyNL3d, insert_plugins
from polynl_mm.backbones import with_plugins

BAD_ENTRIES = [
    (dict(cfg=dict(type="PolyNl3d")), r"type='PolyNl3d'.*did you mean 'PolyNL3d'"),
    (
        dict(cfg=dict(type="PolyNL3d", reducton=2)),
        "PolyNL3d takes no argument 'reducton'; did you mean 'reduction'",
    ),
    (
        dict(cfg=dict(type="NonLocalStage3d", relu=False)),  # its base class has it
        "NonLocalStage3d takes no argument 'relu'",
    ),
    (dict(stages=(True, True, True)), "has 3 values, but the backbone has 4 stages"),
    (dict(stages=(1, 1, 0, 0)), "stages is one True or False for each of the 4"),
    (dict(blocks=((), (4,), (), ())), "layer2 has 4 blocks, 0 to 3.* no block 4"),
    (dict(blocks=((), (-1,), (), ())), "no block -1"),
    (dict(blocks=((), (0, 1, 0, 1), (), ())), "repeats a block; .* not a mask"),
    (dict(blocks=((), (False, True), (), ())), "repeats a block; .* not a mask"),
    (dict(blocks=((), None, (), ())), r"layer2 has a tuple of block indices.*None"),
    (dict(at=5), "at is a module path or a list of them, not 5"),
    (dict(at=["layer1", "layer1.2"]), "names the block 'layer1.2' once more"),
    (dict(at=["layer1.0.conv1.bn"]), "SyncBatchNorm would replace"),
    (dict(blocks="alternating"), "did you mean 'alternate'"),
    (dict(blocks=((), (1,))), "one tuple of block indices for each of the 4 stages"),
    (
        dict(stages=(True, False, False, False), blocks=((), (1,), (), ())),
        r"blocks gives \(1,\) for layer2",
    ),
    (dict(stage=(True, True, True, True)), "not 'stage'; did you mean 'stages'"),
    (dict(position="after_conv4"), "position is one of .*'after_conv4'"),
    (dict(pathway="slow"), "ResNet3dSlowOnly has one; remove pathway"),
    (dict(num_segments=8), "num_segments=8 is for 2D networks"),
    (dict(num_segments=0), "num_segments is a whole number from 1, not 0"),
    (dict(cfg=dict(type="PolyNL2d")), "PolyNL2d takes .*3D features; use PolyNL3d"),
    (dict(cfg=dict(type="PolyNL2d"), num_segments=4), "num_segments=4 is for 3d"),
    (dict(stages=(False,) * 4), "matches no block of ResNet3dSlowOnly"),
    (dict(at=["layer2.9"]), "no module 'layer2.9'; did you mean"),
    (dict(at=["layer2.1"], blocks="all"), "remove blocks from the same"),
    (dict(at=[]), "names no module"),
    (dict(cfg="PolyNL3d"), r"a dict with cfg=dict\(type=...\)"),
]


@pytest.mark.parametrize(
    "entry, message", BAD_ENTRIES, ids=[str(e) for e, _ in BAD_ENTRIES]
)
def test_bad_entries_are_named_in_one_sentence(entry, message):
    with pytest.raises(ValueError, match=message) as error:
        build("ResNet3dSlowOnly", {"cfg": dict(type="PolyNL3d"), **entry})
    assert "\n" not in str(error.value)


def test_frozen_stage_is_named():
    entry = dict(FIVE, cfg=dict(type="PolyNL3d"))
    with pytest.raises(
        ValueError, match=r"layer2.1 would never train.*frozen_stages=2"
    ):
        build("ResNet3dSlowOnly", entry, frozen_stages=2)
    model = build("ResNet3dSlowOnly", entry, frozen_stages=1)
    model.train()
    plugins = [m for m in model.modules() if isinstance(m, PolyNL3d)]
    assert all(p.requires_grad for m in plugins for p in m.parameters())


def test_3d_plugin_in_2d_backbone_needs_num_segments():
    with pytest.raises(ValueError, match=r"num_segments=T.*use PolyNL2d"):
        build("ResNet", dict(FIVE, cfg=dict(type="PolyNL3d")))


def test_missing_conv_of_a_basic_block_is_named():
    entry = dict(cfg=dict(type="PolyNL3d"), position="after_conv3")
    with pytest.raises(
        ValueError, match=r"BasicBlock3d without conv3; use 'after_conv1'"
    ):
        build("ResNet3dSlowOnly", entry, depth=18)


def test_backbone_without_stages_asks_for_at():
    with pytest.raises(ValueError, match=r"has no residual stages.* give at="):
        insert_plugins(OutsideNetwork(), dict(cfg=dict(type="PolyNL3d")))


def test_stages_of_a_network_within_are_named():
    """As RGBPoseConv3D's, which has one network for frames and one for poses."""
    network = nn.Module()
    network.rgb_path = build("ResNet3dSlowOnly")
    with pytest.raises(ValueError, match=r"of its own; give at=\['rgb_path.layer2', "):
        insert_plugins(network, dict(cfg=dict(type="PolyNL3d")))


def test_argument_of_another_backbone_is_named():
    from polynl_mm import WithPlugins

    cfg = dict(type="PolyNL3d")
    with pytest.raises(
        ValueError, match=r"ResNet takes no argument 'lateral'; it takes"
    ):
        WithPlugins(of="ResNet", depth=18, lateral=False, plugins=dict(cfg=cfg))


@pytest.mark.parametrize("depth", [18, 50])  # whose blocks refuse in two ways
def test_misspelt_argument_is_found_behind_kwargs(depth):
    entry = dict(cfg=dict(type="PolyNL3d"))
    with pytest.raises(
        ValueError, match="takes no argument 'depht'; did you mean 'depth'"
    ):
        build("ResNet3dSlowOnly", entry, depth=depth, depht=50)


def test_lists_of_modules_are_no_hosts():
    network = nn.ModuleDict(dict(blocks=nn.ModuleList([nn.Conv3d(3, 3, 1)])))
    with pytest.raises(ValueError, match=r"ModuleList.* such as 'blocks.0'"):
        insert_plugins(network, dict(at="blocks", cfg=dict(type="PolyNL3d")))


def test_unknown_backbone_is_named():
    from polynl_mm import WithPlugins

    with pytest.raises(ValueError, match=r"of='ResNet3dSlowOnl'.*ResNet3dSlowOnly"):
        WithPlugins(of="ResNet3dSlowOnl", plugins=dict(cfg=dict(type="PolyNL3d")))


@pytest.mark.parametrize("plugins", [None, 5, "PolyNL2d"])
def test_plugins_of_another_kind(plugins):
    with pytest.raises(ValueError, match=r"plugins is one dict.*list of such, not"):
        insert_plugins(nn.Sequential(nn.Conv2d(3, 8, 3)), plugins)


def test_plugins_take_type_and_mode_of_the_network():
    network = nn.Sequential(nn.Conv2d(3, 8, 3)).double().eval()
    insert_plugins(network, dict(cfg=dict(type="PolyNL2d"), at=["0"]))
    (plugin,) = (m for m in network.modules() if isinstance(m, PolyNL2d))
    assert plugin.theta.weight.dtype == torch.float64 and not plugin.training


def test_name_of_a_deleted_plugin_is_free_again():
    network = nn.Sequential(nn.Conv2d(3, 8, 3))
    entry = dict(cfg=dict(type="PolyNL2d"), at=["0"])
    insert_plugins(network, [entry, entry])
    kept = network[0].poly_nl1
    del network[0].poly_nl
    insert_plugins(network, entry)
    assert network[0].poly_nl1 is kept and isinstance(network[0].poly_nl, PolyNL2d)


@pytest.mark.parametrize("norm_cfg", ["BN", dict(type="GN"), dict(num_groups=2)])
def test_norms_that_cannot_be_built_are_named(norm_cfg):
    with pytest.raises(ValueError, match="PolyNL3d: norm_cfg"):
        PolyNL3d(8, norm_cfg=norm_cfg)


def test_backbone_of_mmaction2_where_that_is_missing(monkeypatch):
    monkeypatch.setattr(with_plugins, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"'ResNett'.*pip install \"mmaction2==1.2.0"):
        with_plugins.WithPlugins(of="ResNett", plugins=dict(cfg=dict(type="PolyNL2d")))
