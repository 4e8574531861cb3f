"""A whole video read in parts gives what the whole clip gives at once."""

import numpy as np
import pytest
import torch
from clips_over_time import noise, write_lossless
from small_backbones import BACKBONES
from torch import nn

from polynl_mm.recognizers.building import build_recognizer
from polynl_mm.recognizers.configs import load_config
from polynl_mm.recognizers.prediction import Predictor
from polynl_mm.recognizers.whole_video import WholeVideoReader
from polynl_mm.user_errors import UserError

FRAMES = 300
WIDTHS = {"ResNet3dSlowFast": 16 * 32 + 8 * 32, "ResNet2Plus1d": 64}
# The norm keeps features of random networks from growing with every block.
POLY = dict(type="PolyNL3d", zero_init=False, norm_cfg=dict(type="BN3d"))


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Frames that change all the time, and a file of them."""
    frames = np.concatenate([noise(5, seed, 32) for seed in range(FRAMES // 5)])
    path = tmp_path_factory.mktemp("whole") / "video.avi"
    return str(write_lossless(path, frames)), frames


@pytest.fixture(scope="module")
def predictor_of(tiny_config, tmp_path_factory, video):
    """Return a function that builds a small network with random weights."""
    folder = tmp_path_factory.mktemp("networks")

    def build(name, plugin=POLY, crop=""):
        arguments, _, where = BACKBONES[name]
        backbone = {**arguments, "type": name}
        if plugin:
            plugins = [dict(cfg=plugin, **where)]
            backbone |= {"type": "WithPlugins", "of": name, "plugins": plugins}
        head = "SlowFastHead" if name == "ResNet3dSlowFast" else "I3DHead"
        config = tiny_config(
            folder / f"{name}.py",
            extra=f"""
model['backbone'] = {backbone!r}
model['cls_head'] = dict(type={head!r}, in_channels={WIDTHS.get(name, 256)},
                         num_classes=5, spatial_type='avg', dropout_ratio=0.0,
                         average_clips='score')
test_pipeline[3] = dict(type='Resize', scale=(-1, 32))
{crop}
""",
        )
        torch.manual_seed(0)
        model = build_recognizer(load_config(str(config)), name)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm3d):
                module.momentum = None  # what the clip below has, exactly
        nn.init.normal_(model.cls_head.fc_cls.weight, std=0.1)
        model.backbone.train()
        some = torch.from_numpy(video[1][:64]).permute(3, 0, 1, 2)[None]
        with torch.no_grad():
            model.backbone((some.float() - 127) / 60)
        weights = config.with_suffix(".pth")
        torch.save({"state_dict": model.state_dict()}, weights)
        return Predictor(
            load_config(str(config)),
            str(weights),
            "cpu",
            average="config",
            bound_views=False,
        )

    return build


def at_once(reader, frames):
    return reader.predictor.scores(reader._packed(list(frames)), "the clip")


@pytest.mark.parametrize(
    "name, stride, part",
    [
        ("ResNet3dSlowOnly", 1, 64),
        ("ResNet3d", 1, 50),
        ("ResNet3dSlowFast", 1, 100),
        ("ResNet3dSlowOnly", 7, 10),
        ("ResNet3dCSN", 2, 30),
        ("ResNet2Plus1d", 3, 24),
    ],
)
def test_parts_equal_the_clip_at_once(predictor_of, video, name, stride, part, capsys):
    path, frames = video
    reader = WholeVideoReader(predictor_of(name), stride, part)
    with torch.device("meta"):  # nothing is made elsewhere than the network is
        found, note = reader.scores(path)
    expected = at_once(reader, frames[::stride])
    assert note == "" and expected.std() > 0.05
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    blocks = 10 if name == "ResNet3dSlowFast" else 5
    clip = -(-FRAMES // stride)
    said = f"{clip} frames, {blocks + 1} passes over them ({blocks} for the blocks"
    assert said in capsys.readouterr().out


def test_views_of_several_crops(predictor_of, video):
    path, frames = video
    crop = "test_pipeline.insert(4, dict(type='ThreeCrop', crop_size=32))"
    reader = WholeVideoReader(predictor_of("ResNet3dSlowOnly", crop=crop), 10, 8)
    expected = at_once(reader, frames[::10])
    torch.testing.assert_close(reader.scores(path)[0], expected, rtol=1e-5, atol=1e-5)


def test_the_margin_is_needed(predictor_of, video, monkeypatch):
    path, frames = video
    reader = WholeVideoReader(predictor_of("ResNet3d", plugin=None), 3, 24)
    expected = at_once(reader, frames[::3])
    found, _ = reader.scores(path)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    parts = reader._parts
    monkeypatch.setattr(reader, "_parts", lambda f, own, margin: parts(f, own, 0))
    assert not torch.allclose(reader.scores(path)[0], expected, rtol=1e-4, atol=1e-4)


def test_what_cannot_be_read_in_parts_is_refused(predictor_of, video):
    path, _ = video
    predictor = predictor_of("ResNet3dSlowOnly")
    predictor.model.cls_head.avg_pool = None
    with pytest.raises(UserError, match="head that averages over space and time"):
        WholeVideoReader(predictor)
    other = dict(type="NonLocalBlock3d", mode="gaussian")
    predictor = predictor_of("ResNet3d", plugin=other)
    with pytest.raises(UserError, match=r"layer2.1.*NonLocalBlock3d"):
        WholeVideoReader(predictor).scores(path)


@pytest.mark.parametrize(
    "plugin, passes",
    [
        ({**POLY, "axes": "time", "reduction": 2, "heads": 2}, 5),
        ({**POLY, "schedule": "gram"}, 5),
        (dict(type="Pointwise3d", zero_init=False), 0),
        (dict(type="SpectralNL3d", axes="space", zero_init=False), 0),
    ],
    ids=["over time, heads", "gram", "pointwise", "in each frame"],
)
def test_every_form_of_block(predictor_of, video, plugin, passes, capsys):
    path, frames = video
    reader = WholeVideoReader(predictor_of("ResNet3dSlowOnly", plugin=plugin), 6, 16)
    expected = at_once(reader, frames[::6])
    torch.testing.assert_close(reader.scores(path)[0], expected, rtol=1e-5, atol=1e-5)
    said = f"{passes + 1} passes" if passes else "one pass over them"
    assert said in capsys.readouterr().out
