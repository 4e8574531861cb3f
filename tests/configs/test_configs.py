"""Every config builds, predicts, and takes a training step at small size."""

import copy
import functools
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope

from polynl_mm import Plugin
from polynl_mm.recognizers.configs import load_config
from polynl_mm.stack.bfloat16 import accept_bfloat16_scores

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(p.relative_to(ROOT / "configs") for p in ROOT.glob("configs/**/*.py"))
CONFIGS = [path for path in CONFIGS if not path.parts[0].startswith("_")]
# Splits 2 and 3 are split 1 with other lists: see test_splits_differ_in_their_lists.
TRAINED = [path for path in CONFIGS if not re.search(r"split[23]", path.name)]
KINETICS = [path for path in CONFIGS if "kinetics400-rgb" in path.name]
FIVE = ["layer2.1", "layer2.3", "layer3.1", "layer3.3", "layer3.5"]
TEN = [f"layer2.{i}" for i in range(4)] + [f"layer3.{i}" for i in range(6)]


@functools.cache
def read(path):
    return Config.fromfile(ROOT / "configs" / path)


def load(path):
    config = copy.deepcopy(read(path))
    init_default_scope(config.default_scope)
    # Pretrained weights cannot be downloaded in a test.
    config.model.backbone.pretrained = None
    if "TSM" in config.model.backbone.get("of", ""):
        config.model.backbone.pretrained2d = False
    return config


def shrink(model):
    """Make the backbones thin, or shallow where they have one width."""
    backbone, head = model.backbone, model.cls_head
    kind = backbone.get("of", backbone.type)
    if kind == "ResNet3dSlowFast":
        backbone.channel_ratio = 2
        backbone.slow_pathway.base_channels = 16
        backbone.fast_pathway.base_channels = 8
        head.in_channels = 32 * (16 + 8)
    elif kind.startswith("ResNet3d") and backbone.get("num_stages", 4) == 4:
        backbone.base_channels = 8
        head.in_channels = 32 * 8
    elif kind in ("C2D", "ResNetTSM"):
        backbone.depth = 18
        head.in_channels = 512


def make_batch(config):
    """Return inputs of the training pipeline's layout, at 32 x 32."""
    from mmaction.structures import ActionDataSample

    pipeline = config.train_dataloader.dataset.pipeline
    samplers = ("SampleFrames", "UniformSample")
    frames = next(step for step in pipeline if step["type"] in samplers)
    clips, length = frames.get("num_clips", 1), frames["clip_len"]
    layout = next(s for s in pipeline if s["type"] == "FormatShape")["input_format"]
    shape = {"NCTHW": (clips, 3, length, 32, 32), "NCHW": (clips * length, 3, 32, 32)}
    inputs = [torch.randint(0, 255, shape[layout], dtype=torch.uint8) for _ in range(2)]
    return dict(
        inputs=inputs,
        data_samples=[ActionDataSample().set_gt_label(i) for i in range(2)],
    )


def without_gpu(settings):
    """Return the optimizer's config for a CPU, as ``tools/train.py --amp`` does."""
    if settings.get("type") != "AmpOptimWrapper":
        return settings
    accept_bfloat16_scores()
    settings = {k: v for k, v in settings.items() if k not in ("dtype", "loss_scale")}
    return {**settings, "type": "Bfloat16OptimWrapper"}


@pytest.mark.parametrize("path", TRAINED, ids=str)
def test_builds_predicts_and_trains(path):
    from mmaction.registry import MODELS

    torch.manual_seed(0)
    config = load(path)
    shrink(config.model)
    model = MODELS.build(config.model)
    plugins = {n: m for n, m in model.named_modules() if isinstance(m, Plugin)}
    assert bool(plugins) == (config.model.backbone.type == "WithPlugins")

    model.eval()
    with torch.no_grad():
        samples = model.test_step(make_batch(config))
    scores = torch.stack([s.pred_score for s in samples])
    assert scores.shape == (2, config.model.cls_head.num_classes)
    assert torch.allclose(scores.sum(1), torch.ones(2), atol=1e-4)

    optimizer = build_optim_wrapper(model, without_gpu(config.optim_wrapper))
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
            assert parameter.grad is not None, f"{name}.{key} has no gradient"
            # A softmax takes no notice of a bias before it.
            if not key.endswith("bias"):
                assert parameter.grad.abs().max() > 0, f"{name}.{key} has none"


@pytest.mark.parametrize("folder", ["i3d", "slowonly", "slowfast", "tsm", "c2d"])
def test_kinetics_has_every_block_on_every_backbone(folder):
    names = [path.name for path in KINETICS if path.parts[0] == folder]
    for block in (
        "polynl",
        "polynl-10blocks",
        "nl-embedded-gaussian",
        "nl-dot-product",
        "pyramidnl",
        "spectralnl",
    ):
        plain = [n for n in names if re.search(rf"-{block}_8xb\d+-\d", n)]
        assert len(plain) == 1, block


@pytest.mark.parametrize("path", KINETICS, ids=str)
def test_kinetics_configs_place_the_blocks_their_name_says(path):
    from mmaction.registry import MODELS

    config = load(path)
    with torch.device("meta"):
        backbone = MODELS.build(config.model.backbone)
    plugins = {n: m for n, m in backbone.named_modules() if isinstance(m, Plugin)}
    layout = TEN if "10blocks" in path.name else FIVE
    if path.parts[0] == "slowfast":
        pathways = ["slow_path", "fast_path"]
        pathways = pathways[1:] if "-fast_" in path.name else pathways
        pathways = pathways if "-both_" in path.name else pathways[:1]
        layout = [f"{pathway}.{block}" for pathway in pathways for block in layout]
    assert [name.rpartition(".")[0] for name in plugins] == layout

    kind = {
        "polynl": "PolyNL3d",
        "nl": "NonLocalBlock3d",
        "pyramidnl": "PyramidNL3d",
        "spectralnl": "SpectralNL3d",
    }[re.search(r"r50(?:-in1k-pre)?-([a-z]+)", path.name)[1]]
    for plugin in plugins.values():
        assert type(plugin).__name__ == kind
        if kind == "NonLocalBlock3d":
            assert plugin.mode.replace("_", "-") in path.name


@pytest.mark.parametrize("path", CONFIGS, ids=str)
def test_batch_is_what_the_name_says_and_the_rate_scales_with_it(path):
    config = load(path)
    gpus, clips = map(int, re.search(r"_(\d+)xb(\d+)-", path.name).groups())
    assert config.train_dataloader.batch_size == clips
    assert config.auto_scale_lr.base_batch_size == gpus * clips
    assert config.auto_scale_lr.enable is False
    epochs = int(re.search(r"-(\d+)e_", path.name)[1])
    assert config.train_cfg.max_epochs == epochs
    ends = [
        schedule.get("end", epochs)
        for schedule in config.param_scheduler
        if schedule.get("by_epoch", True)
    ]
    assert max(ends) == epochs


@pytest.mark.parametrize("path", CONFIGS, ids=str)
def test_configs_import_the_package_themselves(path):
    """An inherited custom_imports would do, and be lost to a child's."""
    text = (ROOT / "configs" / path).read_text(encoding="utf-8")
    assert 'custom_imports = dict(imports=["polynl_mm"]' in text


@pytest.mark.parametrize("mode", ["embedded-gaussian", "dot-product"])
def test_i3d_takes_the_checkpoints_of_mmaction2s_non_local_i3d(mode):
    from mmaction.registry import MODELS

    name = f"i3d_imagenet-pretrained-r50-nl-{mode}_8xb8-32x2x1-100e_kinetics400-rgb.py"
    ours = load(f"i3d/{name}")
    theirs = load_config(f"mmaction::recognition/i3d/{name}")
    with torch.device("meta"):
        shapes = [
            {
                key: value.shape
                for key, value in MODELS.build(c.model).state_dict().items()
            }
            for c in (ours, theirs)
        ]
    assert shapes[0] == shapes[1]
