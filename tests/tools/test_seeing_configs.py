"""print_config and browse_dataset: what is in a model, what a pipeline yields."""

import numpy as np
import pytest
import torch
from PIL import Image

from polynl_mm.datasets.yielded_clips import as_frames, build_dataset, iterate_clips
from polynl_mm.recognizers.configs import load_config
from polynl_mm.user_errors import UserError

PRINT, BROWSE = "analysis_tools/print_config", "visualizations/browse_dataset"
SLOWFAST = "configs/slowfast/slowfast_r50-polynl_8xb8-8x8x1-256e_kinetics400-rgb.py"
FRAMES_2D = """
train_dataloader['dataset']['pipeline'] = [
    dict(type='DecordInit'),
    dict(type='SampleFrames', clip_len=1, frame_interval=1, num_clips=5),
    dict(type='DecordDecode'),
    dict(type='Resize', scale=(40, 32), keep_ratio=False),
    dict(type='Flip', flip_ratio=0.5),
    dict(type='FormatShape', input_format='NCHW'),
    dict(type='PackActionInputs'),
]
"""


def test_plugins_are_listed_with_their_cost(tool, capsys):
    tool(PRINT).main([SLOWFAST, "--shape", "3", "32", "64", "64"])
    text, _, table = capsys.readouterr().out.partition("One view of 3 x 32 x 64 x 64")
    assert "of='ResNet3dSlowFast'" in text and "optim_wrapper" in text
    rows = [line for line in table.splitlines() if "poly_nl" in line]
    assert len(rows) == 5 and "slow_path.layer2.1.poly_nl" in rows[0]
    assert "1 x 512 x 8 x 8 x 8" in rows[0] and "786,434" in rows[0]
    assert "5 together" in table and "11,010,058" in table


def test_what_the_config_tests_with_is_the_view(tool, capsys):
    options = ["--cfg-options", "model.cls_head.num_classes=7"]
    tool(PRINT).main([SLOWFAST, "--plugins-only", *options])
    out = capsys.readouterr().out
    assert (
        out.startswith("One view of 3 x 32 x 256 x 256") and "1 x 512 x 8 x 32" in out
    )


def test_model_without_plugins(tool, tiny_config, tmp_path, capsys):
    config = tiny_config(tmp_path / "tiny.py")
    with pytest.raises(SystemExit):
        tool(PRINT).main([str(config)])
    assert "give --shape 3 T H W" in capsys.readouterr().err
    tool(PRINT).main([str(config), "--shape", "3", "4", "64", "64"])
    assert "No plugin and no non-local block" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("split", "extra", "shape"),
    [
        ("train", "", (1, 4, 64, 64, 3)),
        ("test", "", (1, 4, 64, 64, 3)),
        ("train", FRAMES_2D, (1, 5, 32, 40, 3)),
    ],
)
def test_clips_are_those_of_the_videos(tiny_config, tmp_path, split, extra, shape):
    config = tiny_config(tmp_path / "tiny.py", extra=extra)
    dataset = build_dataset(load_config(str(config)), split)
    clips = list(iterate_clips(dataset, 3))
    assert len({clip.name for clip in clips}) == 3
    for clip in clips:
        assert clip.frames.shape == shape and clip.frames.dtype == np.uint8
        index = int(clip.name.removesuffix(".mp4"))
        assert clip.label == f"class {index % 2}"
        # A video is noise around one colour.
        colour = np.random.default_rng(index).integers(0, 255, 3)[::-1]
        mean = clip.frames.reshape(-1, 3).mean(axis=0)
        assert abs(mean - colour).max() < 25


def test_picture_and_seed(tool, tiny_config, tmp_path, capsys):
    config = str(tiny_config(tmp_path / "tiny.py"))
    for name in ("a.png", "b.png"):
        tool(BROWSE).main(
            [
                *(config, "--split", "train", "--number", "3", "--frames", "2"),
                *("--views", "1", "--seed", "4", "--out", str(tmp_path / name)),
                *("--cfg-options", "train_dataloader.batch_size=1"),
            ]
        )
    assert "3 of 12 samples are in" in capsys.readouterr().out
    with Image.open(tmp_path / "a.png") as a, Image.open(tmp_path / "b.png") as b:
        assert min(a.size) > 200 and (np.asarray(a) == np.asarray(b)).all()


def test_normalisation_is_undone():
    class Normalize:
        mean, std, to_bgr = np.float32([1, 2, 3]), np.float32([4, 5, 6]), False

    class Pipeline:
        transforms = (Normalize(),)

    frames = torch.randint(0, 256, (2, 6, 5, 4, 3)).float()
    inputs = (frames - torch.tensor(Normalize.mean)) / torch.tensor(Normalize.std)
    found = as_frames(inputs.permute(0, 4, 1, 2, 3), Pipeline)
    assert (found == frames.numpy()).all()


def test_mistakes(tool, tiny_config, tmp_path, capsys):
    config = str(tiny_config(tmp_path / "tiny.py"))
    with pytest.raises(SystemExit):
        tool(BROWSE).main([config, "--number", "0"])
    assert "--number is a whole number from 1" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        tool(BROWSE).main([config, "--out", str(tmp_path / "a.txt")])
    assert ".png, .pdf or .svg" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"yields the shape \(1, 2, 4, 8, 8\)"):
        as_frames(torch.zeros(1, 2, 4, 8, 8))
