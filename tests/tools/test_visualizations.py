"""The tools that draw over a video: influence.py and grad_cam.py."""

import cv2
import numpy as np
import pytest
import torch

from polynl_mm.recognizers.building import build_recognizer
from polynl_mm.recognizers.configs import load_config

PLUGIN = "backbone.layer1.0.poly_nl"
EXTRA = """
model['backbone'].update(type='WithPlugins', of='ResNet3dSlowOnly',
    plugins=[dict(cfg=dict(type='PolyNL3d', zero_init=False))])
"""
# A network of images: each frame is a sample of its own.
IMAGES = """
model = dict(type='Recognizer2D',
    backbone=dict(type='WithPlugins', of='ResNet', depth=18, pretrained=None,
                  num_stages=2, out_indices=(1,), strides=(1, 2), dilations=(1, 1),
                  plugins=[dict(cfg=dict(type='PolyNL2d', zero_init=False))]),
    cls_head=dict(type='TSNHead', in_channels=128, num_classes=2, dropout_ratio=0),
    data_preprocessor=dict(type='ActionDataPreprocessor', mean=[127.] * 3,
                           std=[60.] * 3, format_shape='NCHW'))
test_pipeline[1].update(clip_len=1, num_clips=3)
test_pipeline[4].update(input_format='NCHW')
"""
OWN_BLOCKS = """
model['backbone'].update(non_local=((1, 0),), non_local_cfg=dict(use_scale=True,
    norm_cfg=dict(type='BN3d'), mode='dot_product'))
"""


def save(config, folder):
    """Save a checkpoint of a config's model, of random weights."""
    torch.manual_seed(0)
    model = build_recognizer(load_config(str(config)), config.name)
    for name, parameter in model.named_parameters():
        if "conv_out" in name:
            torch.nn.init.normal_(parameter)
    torch.save(dict(state_dict=model.state_dict()), folder / "model.pth")


@pytest.fixture(scope="module")
def trained(tiny_config, tmp_path_factory):
    """A config with two plugins, a checkpoint of it, and names of its classes."""
    folder = tmp_path_factory.mktemp("shown")
    config = tiny_config(folder / "config.py", extra=EXTRA)
    torch.manual_seed(0)
    model = build_recognizer(load_config(str(config)), "config.py")
    # Features behind a ReLU speak for class 1.
    torch.nn.init.uniform_(model.cls_head.fc_cls.weight, -1, 0)
    model.cls_head.fc_cls.weight.data[1].neg_()
    torch.save(dict(state_dict=model.state_dict()), folder / "model.pth")
    (folder / "names.txt").write_text("opening a door\nclosing a door\n")
    return folder


@pytest.fixture
def command(trained, tiny_dataset, tmp_path):
    video = tiny_dataset / "videos/3.mp4"
    paths = [trained / "config.py", trained / "model.pth", video]
    return [*map(str, paths), "--out", str(tmp_path / "out"), "--device", "cpu"]


def test_influence_is_drawn_and_written(tool, command, trained, tmp_path, capsys):
    names = ["--labels", str(trained / "names.txt"), "--class", "closing a door"]
    main = tool("visualizations/influence").main
    main([*command, *names, "--plugin", PLUGIN, "--at", "40,20,0.4"])
    said = capsys.readouterr().out
    assert f"PolyNL3d at {PLUGIN}" in said and "closing a door has the score" in said
    out = tmp_path / "out"
    assert sorted(p.name for p in out.iterdir()) == [
        "3_influence.mp4",
        "3_influence.npz",
        "3_influence.png",
    ]
    found = np.load(out / "3_influence.npz")
    frames, height, width = found["shares"].shape
    assert found["label"] == 1 and found["shares"].sum() == pytest.approx(1, abs=1e-4)
    t, y, x = found["at"]
    # The clip is frames 2 to 5 of 8, at 10 a second; the features are 4 times smaller.
    assert (t, y * 64 / height, x * 64 / width) == (2, 20, 40)
    assert (found["norms"] >= 0).all() and found["toward_class"].any()
    assert cv2.imread(str(out / "3_influence.png")).shape[1] > 600
    reader = cv2.VideoCapture(str(out / "3_influence.mp4"))
    assert reader.get(cv2.CAP_PROP_FRAME_COUNT) == frames == 4


def test_largest_update_of_the_last_block_is_the_default(tool, command, capsys):
    tool("visualizations/influence").main(command)
    assert "PolyNL3d at backbone.layer1.1.poly_nl" in capsys.readouterr().out


def test_frames_of_a_network_of_images_do_not_see_one_another(
    tool, command, tiny_config, tmp_path
):
    config = tiny_config(tmp_path / "images.py", extra=IMAGES)
    text = config.read_text().replace(IMAGES, "")
    before, after = text.split("model = dict(", 1)
    after = after.split("dataset = dict(", 1)[1]
    config.write_text(f"{before}{IMAGES}dataset = dict({after}")
    save(config, tmp_path)
    command[:2] = [str(config), str(tmp_path / "model.pth")]
    tool("visualizations/influence").main([*command, "--at", "32,16,0.4"])
    found = np.load(tmp_path / "out/3_influence.npz")
    frames = found["norms"].max(axis=(1, 2))
    assert len(frames) == 3 and (frames > 0).sum() == 1
    assert frames[found["at"][0]] > 0
    assert found["shares"].sum() == pytest.approx(1, abs=1e-4)
    cam = tool("visualizations/grad_cam").main
    cam([*command, "--module", "backbone.layer1"])
    assert np.load(tmp_path / "out/3_grad_cam.npz")["grad_cam"].shape == (3, 16, 16)


def test_blocks_that_the_model_has_of_its_own_are_shown(
    tool, command, tiny_config, tmp_path, capsys
):
    config = tiny_config(tmp_path / "own.py", extra=OWN_BLOCKS)
    save(config, tmp_path)
    command[:2] = [str(config), str(tmp_path / "model.pth")]
    tool("visualizations/influence").main(command)
    said = capsys.readouterr().out
    assert "NonLocalBlock3d at backbone.layer1.0.non_local_block" in said


def test_grad_cam_is_drawn_and_written(tool, command, tmp_path, capsys):
    tool("visualizations/grad_cam").main(
        [*command, "--module", "backbone.layer1", "--class", "1"]
    )
    assert "backbone.layer1: class 1 has the score" in capsys.readouterr().out
    found = np.load(tmp_path / "out/3_grad_cam.npz")
    assert found["label"] == 1 and found["grad_cam"].shape[0] == 4
    assert (found["grad_cam"] >= 0).all() and found["grad_cam"].any()
    assert {p.suffix for p in (tmp_path / "out").iterdir()} == {".mp4", ".npz", ".png"}


@pytest.mark.parametrize(
    "options, said",
    [
        (["--at", "1,2"], "--at is X,Y,T, pixels and seconds"),
        (["--at", "1,2,three"], "--at is X,Y,T"),
        (["--at", "900,2,0.4"], "the model does not see x=900"),
        (["--plugin", "backbone.layer1.0.poly"], "did you mean 'backbone.layer1.0"),
        (["--class", "door"], "no class 'door'; give the names by --labels"),
        (["--class", "2"], "the model has 2 classes, from 0 to 1"),
    ],
)
def test_mistakes_are_said(tool, command, options, said, capsys):
    with pytest.raises(SystemExit) as error:
        tool("visualizations/influence").main([*command, *options])
    assert error.value.code == 2
    assert said in capsys.readouterr().err


def test_unknown_names_and_modules_are_said(tool, command, trained, capsys):
    main = tool("visualizations/grad_cam").main
    names = ["--labels", str(trained / "names.txt"), "--class", "opening a dor"]
    for options, said in (
        (["--module", "backbone.layer9"], "no module 'backbone.layer9'; did you mean"),
        (["--module", "backbone", *names], "did you mean 'opening a door'"),
        (["--module", "cls_head"], "gives values of shape"),
    ):
        with pytest.raises(SystemExit):
            main([*command, *options])
        assert said in capsys.readouterr().err
