"""Plugins in the ten backbones of MMAction2 and in networks from elsewhere."""

import copy
import logging
import pickle
from contextlib import contextmanager

import pytest
import torch
from mmcv.cnn.bricks.non_local import NonLocal3d
from mmengine.logging import MMLogger
from mmengine.runner import load_checkpoint
from small_backbones import BACKBONES, FIVE, OutsideNetwork, build
from torch import nn

import polynl_mm  # noqa: F401 - registers the plugins
from polynl_mm import PolyNL2d, PolyNL3d, insert_plugins

# Both ways to lose the identity in init_weights: a scale, and a norm set to 1.
KINDS = {
    "poly_nl": dict(type="PolyNL3d", norm_cfg=dict(type="BN3d")),
    "non_local_block": dict(type="NonLocalBlock3d", norm_cfg=dict(type="BN3d")),
}


@pytest.fixture(autouse=True)
def quiet_initialisation():
    """Keep MMEngine from logging the initialisation of every parameter."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(level)


@contextmanager
def info_messages():
    """Collect what is logged at level INFO."""
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


def wake(model):
    """Move plugins away from the identity, but not so far that features explode."""
    for module in model.modules():
        if isinstance(module, PolyNL3d):
            nn.init.constant_(module.alpha, 1e-4)
    return model


def outputs(model, name):
    torch.manual_seed(1)
    model.eval()  # returns None in MMAction2's backbones
    features = model(torch.randn(BACKBONES[name][1]))
    features = [features] if isinstance(features, torch.Tensor) else features
    return torch.cat([f.flatten() for f in features])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", BACKBONES)
def test_identity_after_init_weights(name, kind):
    plain = build(name)
    plain.init_weights()
    placed = build(name, dict(BACKBONES[name][2], cfg=KINDS[kind]))
    placed.init_weights()
    assert type(placed) is type(plain)
    result = placed.load_state_dict(plain.state_dict(), strict=False)
    assert not result.unexpected_keys
    assert result.missing_keys and all(f".{kind}." in k for k in result.missing_keys)
    assert torch.equal(outputs(placed, name), outputs(plain, name))


@pytest.mark.parametrize("name", BACKBONES)
def test_plugins_are_run_and_trained(name):
    cfg = dict(type="PolyNL3d")
    placed = wake(build(name, dict(BACKBONES[name][2], cfg=cfg)))
    plugins = [m for m in placed.modules() if isinstance(m, PolyNL3d)]
    before = outputs(placed, name)
    before.sum().backward()
    assert all(p.grad is not None for m in plugins for p in m.parameters())
    for plugin in plugins:
        plugin.beta.data.fill_(0.5)
    after = outputs(placed, name)
    assert not torch.equal(before, after)


@pytest.mark.parametrize("pathway, expected", [("slow", 5), ("fast", 5), ("both", 10)])
def test_pathways_of_slowfast(pathway, expected):
    entry = dict(FIVE, pathway=pathway, cfg=dict(type="PolyNL3d"))
    model = build("ResNet3dSlowFast", entry)
    paths = [n for n, m in model.named_modules() if isinstance(m, PolyNL3d)]
    assert len(paths) == expected
    starts = ("slow_path", "fast_path") if pathway == "both" else f"{pathway}_path"
    assert all(path.startswith(starts) for path in paths)


def test_five_block_layout_and_names():
    model = build("ResNet3dSlowOnly", dict(FIVE, cfg=dict(type="NonLocalBlock3d")))
    names = [n for n, m in model.named_modules() if n.endswith("non_local_block")]
    blocks = ["layer2.1", "layer2.3", "layer3.1", "layer3.3", "layer3.5"]
    assert names == [f"{block}.non_local_block" for block in blocks]
    assert "(non_local_block): NonLocalBlock3d(" in str(model)


def test_mmaction2_non_local_checkpoints_load():
    """The keys are those of MMAction2's own non-local models."""
    theirs = build(
        "ResNet3dSlowOnly",
        non_local=(0, (0, 1, 0, 1), 0, 0),
        non_local_cfg=dict(mode="dot_product", norm_cfg=dict(type="BN3d")),
    )
    cfg = dict(type="NonLocalBlock3d", mode="dot_product", norm_cfg=dict(type="BN3d"))
    ours = build("ResNet3dSlowOnly", dict(cfg=cfg, blocks=((), (1, 3), (), ())))
    for block in theirs.modules():
        if isinstance(block, NonLocal3d):
            nn.init.normal_(block.conv_out.bn.weight)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    name = "ResNet3dSlowOnly"
    assert torch.allclose(outputs(ours, name), outputs(theirs, name), atol=1e-5)


def test_plugin_weights_in_a_checkpoint_survive_init_weights(tmp_path):
    entry = dict(FIVE, cfg=dict(type="PolyNL3d"))
    trained = wake(build("ResNet3dSlowOnly", entry))
    path = tmp_path / "trained.pth"
    torch.save(dict(state_dict=trained.state_dict()), path)
    model = build("ResNet3dSlowOnly", dict(FIVE, cfg=dict(type="PolyNL3d")))
    model.pretrained, model.pretrained2d = str(path), False
    model.init_weights()
    name = "ResNet3dSlowOnly"
    assert torch.equal(outputs(model, name), outputs(trained, name))


@pytest.mark.parametrize("name", ["ResNet3dSlowOnly", "ResNet", "MobileNetV2TSM"])
def test_plain_pretrained_weights_load_in_init_weights(name, tmp_path):
    plain = build(name)
    plain.init_weights()
    path = tmp_path / "plain.pth"
    # MobileNetV2TSM loads strictly, under the names from before its shifts.
    weights = {k.replace(".net", ""): v for k, v in plain.state_dict().items()}
    torch.save(dict(state_dict=weights), path)
    entry = dict(BACKBONES[name][2], cfg=dict(type="PolyNL3d"))
    model = build(name, entry)
    model.pretrained, model.pretrained2d = str(path), name == "MobileNetV2TSM"
    model.torchvision_pretrain = False
    with info_messages() as messages:
        model.init_weights()
    assert torch.equal(outputs(model, name), outputs(plain, name))
    missing = [m for m in messages if "missing keys" in m and "poly_nl" in m]
    assert not missing


def test_inflation_does_not_mention_plugins(tmp_path):
    flat = build("ResNet", depth=50)
    flat.init_weights()
    path = tmp_path / "imagenet.pth"
    torch.save(dict(state_dict=flat.state_dict()), path)
    model = build(
        "ResNet3d",
        dict(FIVE, cfg=KINDS["non_local_block"]),
        base_channels=64,
        pretrained=str(path),
        pretrained2d=True,
    )
    with info_messages() as messages:
        model.init_weights()
    assert not [m for m in messages if "non_local" in m and "not exist" in m]
    block = model.layer2[1].non_local_block
    assert block.conv_out.bn.weight.abs().max() == 0


@pytest.mark.parametrize(
    "copier",
    [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))],
    ids=["deepcopy", "pickle"],
)
def test_copies_run_their_own_plugins(copier):
    entry = dict(FIVE, cfg=dict(type="PolyNL3d", zero_init=False))
    model = wake(build("ResNet3dSlowOnly", entry))
    name = "ResNet3dSlowOnly"
    expected = outputs(model, name)
    copied = copier(model)
    assert torch.equal(outputs(copied, name), expected)
    for plugin in copied.modules():
        if isinstance(plugin, PolyNL3d):
            plugin.alpha.data.zero_()
    assert torch.equal(outputs(model, name), expected)
    assert not torch.equal(outputs(copied, name), expected)
    copied.init_weights()
    assert copied.init_weights.args[0] is copied
    assert torch.equal(copied.layer2[1].poly_nl.alpha, torch.zeros(1))


@pytest.mark.parametrize("position", ["after_conv1", "after_conv2", "after_conv3"])
def test_positions_inside_a_block(position):
    cfg = dict(type="PolyNL3d", zero_init=False)
    entry = dict(cfg=cfg, position=position, blocks=((), (0,), (), ()))
    model = build("ResNet3dSlowOnly", entry)
    conv = getattr(model.layer2[0], position.removeprefix("after_"))
    seen = {}
    conv.register_forward_hook(lambda m, a, out: seen.update(out=out))
    block_input = torch.randn(1, 32, 4, 8, 8)
    model.eval()
    model.layer2[0](block_input)
    plugin = conv.poly_nl
    assert plugin.in_channels == conv.out_channels == seen["out"].shape[1]
    x = torch.randn(1, conv.in_channels, 4, 8, 8)
    after = conv(x)
    plugin.alpha.data.zero_()
    assert not torch.allclose(conv(x), after)


def test_activation_checkpointing():
    entry = dict(FIVE, cfg=dict(type="PolyNL3d", zero_init=False))
    plain = wake(build("ResNet3dSlowOnly", entry))
    saving = build("ResNet3dSlowOnly", entry, with_cp=True)
    saving.load_state_dict(plain.state_dict())
    x = torch.randn(BACKBONES["ResNet3dSlowOnly"][1], requires_grad=True)
    gradients = []
    for model in (plain, saving):
        model.train()
        model(x).sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-4)


def test_two_plugins_after_one_block_run_in_order():
    entries = [
        dict(cfg=dict(type="PolyNL3d", zero_init=False), blocks=((), (1,), (), ())),
        dict(cfg=dict(type="PolyNL3d", zero_init=False), blocks=((), (1,), (), ())),
    ]
    model = build("ResNet3dSlowOnly", entries)
    block = model.layer2[1]
    assert {"poly_nl", "poly_nl1"} <= {n for n, _ in block.named_children()}
    order = []
    block.poly_nl.register_forward_hook(lambda *_: order.append(0))
    block.poly_nl1.register_forward_hook(lambda *_: order.append(1))
    block(torch.randn(1, 64, 2, 4, 4))
    assert order == [0, 1]


def test_number_of_insertions_is_logged_once():
    with info_messages() as messages:
        build("ResNet3dSlowOnly", dict(FIVE, cfg=dict(type="PolyNL3d")))
    said = [m for m in messages if "inserted" in m]
    assert len(said) == 1 and "PolyNL3d 5 times: layer2.1.poly_nl" in said[0]


def test_num_segments_sees_the_frames_of_one_clip_only():
    entry = dict(FIVE, num_segments=8, cfg=dict(type="PolyNL3d", zero_init=False))
    model = wake(build("ResNet", entry))
    model.eval()
    clips = torch.randn(2, 8, 3, 32, 32)
    together = model(clips.flatten(0, 1)).unflatten(0, (2, 8))
    alone = torch.stack([model(clip) for clip in clips])
    assert torch.allclose(together, alone, atol=1e-4)
    with pytest.raises(ValueError, match=r"num_segments=8 .* divide the 7 frames"):
        model(torch.randn(7, 3, 32, 32))


def test_networks_from_outside_openmmlab():
    network = OutsideNetwork()
    x = torch.randn(1, 3, 4, 6, 6)
    expected = network(x)
    names = set(network.state_dict())
    placed = insert_plugins(
        network, dict(cfg=dict(type=PolyNL3d, reduction=2), at=["stem", "body"])
    )
    assert placed is network and names < set(network.state_dict())
    assert network.body.poly_nl.in_channels == 16
    # In a Sequential the plugin follows its last module, and is run once.
    calls = []
    plugin = network.stem[-1].poly_nl
    plugin.register_forward_hook(lambda *_: calls.append(1))
    assert torch.equal(network(x), expected) and calls == [1]


def test_2d_plugins_in_a_2d_network():
    model = build("ResNet", dict(FIVE, cfg=dict(type=PolyNL2d)))
    assert sum(isinstance(m, PolyNL2d) for m in model.modules()) == 5


def test_nothing_is_inserted_when_an_entry_is_wrong():
    network = OutsideNetwork()
    entries = [
        dict(cfg=dict(type="PolyNL3d"), at="body"),
        dict(cfg=dict(type="PolyNL3d"), at="nowhere"),
    ]
    with pytest.raises(ValueError):
        insert_plugins(network, entries)
    assert not any(isinstance(m, PolyNL3d) for m in network.modules())


def test_recognizer_checkpoint_round_trip(tmp_path):
    entry = dict(FIVE, cfg=dict(type="PolyNL3d", zero_init=False))
    model = wake(build("ResNet3dSlowOnly", entry))
    torch.save(dict(state_dict=model.state_dict()), tmp_path / "m.pth")
    other = build("ResNet3dSlowOnly", entry)
    load_checkpoint(other, str(tmp_path / "m.pth"), strict=True)
    name = "ResNet3dSlowOnly"
    assert torch.equal(outputs(other, name), outputs(model, name))


def test_arguments_that_only_kwargs_take_go_through():
    network = OutsideNetwork()
    cfg = dict(type=NonLocal3d, zeros_init=False)  # for its init_weights
    insert_plugins(network, dict(cfg=cfg, at="body"))
    assert isinstance(network.body.non_local3d, NonLocal3d)


def test_channels_are_those_of_the_block_and_not_of_what_follows_in_it():
    """X3D registers squeeze-and-excitation last, and a block may hold a plugin."""
    model = build("X3D", dict(at=["layer3.0", "layer3.1"], cfg=dict(type="PolyNL3d")))
    assert model.layer3[0].poly_nl.in_channels == model.layer3[1].poly_nl.in_channels
    network = OutsideNetwork()
    entry = dict(at="body", cfg=dict(type="NonLocalBlock3d"))
    insert_plugins(insert_plugins(network, entry), entry)
    assert network.body.non_local_block1.in_channels == 16
    network(torch.randn(1, 3, 2, 4, 4))


def test_frozen_by_hand_is_the_users_choice():
    """Training the plugins alone, in a network frozen by its user, is legitimate."""
    network = OutsideNetwork().requires_grad_(False)
    insert_plugins(network, dict(cfg=dict(type="PolyNL3d"), at="body"))
    assert network.body.poly_nl.alpha.requires_grad
