"""Every config builds, predicts, and takes a training step at small size."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope

from polynl_mm import Plugin

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(p.relative_to(ROOT / "configs") for p in ROOT.glob("configs/**/*.py"))
CONFIGS = [path for path in CONFIGS if not path.parts[0].startswith("_")]


def load(path):
    config = Config.fromfile(ROOT / "configs" / path)
    init_default_scope(config.default_scope)
    # Pretrained weights cannot be downloaded in a test.
    config.model.backbone.pretrained = None
    if "TSM" in config.model.backbone.get("of", ""):
        config.model.backbone.pretrained2d = False
    return config


def make_batch(config):
    """Return inputs of the training pipeline's layout, at 32 x 32."""
    from mmaction.structures import ActionDataSample

    pipeline = config.train_dataloader.dataset.pipeline
    frames = next(step for step in pipeline if step["type"] == "SampleFrames")
    clips, length = frames.get("num_clips", 1), frames["clip_len"]
    layout = next(s for s in pipeline if s["type"] == "FormatShape")["input_format"]
    shape = {"NCTHW": (clips, 3, length, 32, 32), "NCHW": (clips * length, 3, 32, 32)}
    inputs = [torch.randint(0, 255, shape[layout], dtype=torch.uint8) for _ in range(2)]
    return dict(
        inputs=inputs,
        data_samples=[ActionDataSample().set_gt_label(i) for i in range(2)],
    )


@pytest.mark.parametrize("path", CONFIGS, ids=str)
def test_builds_predicts_and_trains(path):
    from mmaction.registry import MODELS

    torch.manual_seed(0)
    config = load(path)
    model = MODELS.build(config.model)
    plugins = {n: m for n, m in model.named_modules() if isinstance(m, Plugin)}
    assert bool(plugins) == (config.model.backbone.type == "WithPlugins")

    model.eval()
    with torch.no_grad():
        samples = model.test_step(make_batch(config))
    scores = torch.stack([s.pred_score for s in samples])
    assert scores.shape == (2, config.model.cls_head.num_classes)
    assert torch.allclose(scores.sum(1), torch.ones(2), atol=1e-4)

    optimizer = build_optim_wrapper(model, config.optim_wrapper)
    decay = {
        id(p): group["weight_decay"]
        for group in optimizer.param_groups
        for p in group["params"]
    }
    for name, plugin in plugins.items():
        for key, parameter in plugin.named_parameters():
            assert id(parameter) in decay, f"{name}.{key} would never be trained"
            if key in ("alpha", "beta"):
                assert decay[id(parameter)] == 0, f"{name}.{key} would decay"

    model.train()
    losses = model.train_step(make_batch(config), optimizer)
    assert losses["loss"].isfinite()
    # The step has moved alpha from 0, so that now every weight has a gradient.
    data = model.data_preprocessor(make_batch(config), training=True)
    model.parse_losses(model(**data, mode="loss"))[0].backward()
    for name, plugin in plugins.items():
        for key, parameter in plugin.named_parameters():
            assert parameter.grad.abs().max() > 0, f"{name}.{key} has no gradient"


@pytest.mark.parametrize("path", CONFIGS, ids=str)
def test_kinetics_configs_place_five_blocks(path):
    if "kinetics400" not in path.name or "polynl" not in path.name:
        pytest.skip("another layout")
    from mmaction.registry import MODELS

    model = MODELS.build(load(path).model)
    names = [n for n, m in model.named_modules() if isinstance(m, Plugin)]
    ends = ["layer2.1", "layer2.3", "layer3.1", "layer3.3", "layer3.5"]
    assert [".".join(n.split(".")[-3:-1]) for n in names] == ends
