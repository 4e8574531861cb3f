"""compare_plugins: what it counts is get_flops's, what it predicts really trains."""

import csv
import re

import pytest
import torch
from mmaction.utils import register_all_modules

from polynl_mm.analysis.cost.choices import choice_config, parse_plugin, with_frames
from polynl_mm.analysis.cost.training_steps import Trainer
from polynl_mm.recognizers.configs import load_config
from polynl_mm.user_errors import UserError

TOOL = "analysis_tools/compare_plugins"
PLAIN = "configs/bookends/slowonly_r18_2xb16-8x2x1-5e_bookends-rgb.py"
PLUGGED = "configs/bookends/slowonly_r18-polynl_2xb16-8x2x1-5e_bookends-rgb.py"
SHAPE = ["3", "8", "32", "32"]


def test_costs_are_counted_measured_and_tried(tool, tmp_path, capsys):
    plugins = ["PolyNL3d", "NonLocalBlock3d(mode=dot_product)"]
    layout = ["stages=(True,False)", "blocks=last"]
    tool(TOOL).main(
        [
            *(PLAIN, "--plugins", *plugins, "--shape", *SHAPE, "--layout", *layout),
            *("--memory-budget", "8MB", "--verify", "--rounds", "1"),
            *("--batch-size", "2", "--threads", "1", "--device", "cpu"),
            *("--out", str(tmp_path)),
        ]
    )
    assert "| PolyNL3d |" in capsys.readouterr().out
    with open(tmp_path / "comparison.csv") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["no plugin", *plugins]
    assert [row["plugins"] for row in rows.values()] == ["0", "1", "1"]
    assert float(rows["no plugin"]["step_ratio"]) == 1
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")
    names = {"no plugin": "no_plugin", "PolyNL3d": "PolyNL3d"}
    names["NonLocalBlock3d(mode=dot_product)"] = "NonLocalBlock3d_mode=dot_product"
    for name, row in rows.items():
        config = tmp_path / "configs" / f"{names[name]}.py"
        tool("analysis_tools/get_flops").main([str(config), "--shape", *SHAPE])
        printed = capsys.readouterr().out
        assert f"FLOPs: {float(row['gflops']):.1f} G" in printed
        found = re.search(r"Parameters: (\S+) M", printed)
        assert float(found[1]) == round(int(row["parameters"]) / 1e6, 1)
    trainer = Trainer(load_config(str(config)), "it", torch.device("cpu"))
    batch, frames = (int(row[key]) for key in ("largest_batch", "longest_clip"))
    shape = (3, 8, 32, 32)
    assert (
        trainer.peak_bytes(batch, shape) <= 8e6 < trainer.peak_bytes(batch + 1, shape)
    )
    assert trainer.peak_bytes(1, (3, frames, 32, 32)) <= 8e6
    assert trainer.peak_bytes(1, (3, frames + 1, 32, 32)) > 8e6


def test_memory_is_that_of_weights_state_and_step():
    cfg = load_config(PLAIN, {"optim_wrapper.optimizer.type": "AdamW"})
    trainer = Trainer(cfg, "it", torch.device("cpu"))
    weights = sum(p.numel() * 4 for p in trainer.model.parameters())
    held = trainer.peak_bytes(1, (3, 8, 32, 32))
    # Weights, two moments and gradients are the least.
    assert held > 4 * weights
    assert all(
        group["lr"] == 0 for group in trainer.optim_wrapper.optimizer.param_groups
    )


def test_layout_is_the_configs_own():
    cfg = load_config(PLUGGED)
    plugin = parse_plugin("SpectralNL3d(order=2)")
    chosen = choice_config(cfg, plugin, {}, 8).model.backbone
    assert chosen.plugins[0]["cfg"] == dict(type="SpectralNL3d", order=2)
    assert tuple(chosen.plugins[0]["stages"]) == (True, False)
    bare = choice_config(cfg, None, {}, 8).model.backbone
    assert bare.type == "ResNet3dSlowOnly" and "plugins" not in bare
    assert cfg.model.backbone.type == "WithPlugins"


def test_2d_recognizers_know_their_frames():
    tsm = "tsm_imagenet-pretrained-r50_8xb16-1x1x8-50e_kinetics400-rgb"
    cfg = load_config(f"mmaction::recognition/tsm/{tsm}.py")
    chosen = choice_config(cfg, parse_plugin("PolyNL3d"), {}, 8)
    assert chosen.model.backbone.plugins[0]["num_segments"] == 8
    register_all_modules(init_default_scope=False)
    longer = with_frames(chosen, 8, 12).model
    assert longer.backbone.plugins[0]["num_segments"] == 12
    assert longer.backbone.num_segments == longer.cls_head.num_segments == 12
    flat = choice_config(cfg, parse_plugin("PolyNL2d"), {}, 8)
    assert "num_segments" not in flat.model.backbone.plugins[0]


@pytest.mark.parametrize("text", ["", "a b", "A(1)", "A(**b)", "A(x=f())", "a.b", "A("])
def test_bad_plugins(text):
    with pytest.raises(UserError, match="is no plugin: give types"):
        parse_plugin(text)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--plugins", "PolyNl3d", "--shape", *SHAPE], "did you mean 'PolyNL3d'"),
        (["--plugins", "PolyNL3d", "--shape", "8", "3", "9", "9"], "is 3 T H W"),
        (["--plugins", "PolyNL3d", "--shape", *SHAPE, "--verify"], "--memory-budget"),
        (
            ["--plugins", "PolyNL3d", "--shape", *SHAPE, "--memory-budget", "9"],
            "no amount of memory",
        ),
        (
            [
                *("--plugins", "PolyNL3d", "--shape", *SHAPE),
                *("--memory-budget", "900TB", "--verify"),
            ],
            "this machine has",
        ),
    ],
)
def test_mistakes(tool, tmp_path, capsys, given, sentence):
    options = ["--out", str(tmp_path), "--device", "cpu"]
    config = ["--cfg-options", "default_scope=mmaction"]
    with pytest.raises(SystemExit):
        tool(TOOL).main([PLAIN, *given, *options, *config])
    assert sentence in capsys.readouterr().err
