"""The weights that a config's training starts from can be had, or a sentence says how.

Nothing is downloaded here: what torch.hub would fetch is asked for, or made.
"""

import re
import sys
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import CheckpointLoader
from torch import nn

from polynl_mm.stack.safe_checkpoints import CheckpointError

CONFIGS = Path(__file__).parents[2] / "configs"
PATHS = sorted(p.relative_to(CONFIGS) for p in CONFIGS.glob("*/*.py"))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty torch.hub cache on a machine that reaches no network."""

    def download(url, *_):
        raise URLError(f"no route to {url}")

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    return tmp_path / "checkpoints"


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_every_config_says_offline_what_to_download_and_where_to(path, hub):
    config = Config.fromfile(CONFIGS / path)
    backbone = config.model.backbone
    starts = [config.get("load_from"), backbone.get("pretrained")]
    for start in filter(None, starts):
        with pytest.raises(CheckpointError) as error:
            CheckpointLoader.load_checkpoint(start)
        said = re.search(
            r"(https://\S+\.pth) cannot be downloaded .* to (\S+\.pth),",
            str(error.value),
        )
        assert said[2] == str(hub / Path(said[1]).name)
        if start.startswith("https://"):
            assert said[1] == start


def resnet18_of_torchvision():
    """Return random weights under torchvision's names, as its ResNet-18 has them."""
    layers = {"conv1": nn.Conv2d(3, 64, 7, bias=False), "bn1": nn.BatchNorm2d(64)}
    inner = 64
    for stage, width in enumerate((64, 128, 256, 512), start=1):
        for block in range(2):
            name, entering = f"layer{stage}.{block}.", inner if block == 0 else width
            layers[name + "conv1"] = nn.Conv2d(entering, width, 3, bias=False)
            layers[name + "conv2"] = nn.Conv2d(width, width, 3, bias=False)
            layers |= {name + f"bn{i}": nn.BatchNorm2d(width) for i in (1, 2)}
            if entering != width:
                shortcut = nn.Conv2d(entering, width, 1, bias=False)
                layers[name + "downsample.0"] = shortcut
                layers[name + "downsample.1"] = nn.BatchNorm2d(width)
        inner = width
    layers["fc"] = nn.Linear(512, 1000)
    return {
        f"{name}.{key}": value
        for name, layer in layers.items()
        for key, value in layer.state_dict().items()
    }


@pytest.mark.parametrize("family", ["c2d", "i3d", "tsm"])
def test_image_weights_start_the_backbone_without_torchvision(family, hub, monkeypatch):
    from mmaction.registry import MODELS

    monkeypatch.setitem(sys.modules, "torchvision", None)
    weights = resnet18_of_torchvision()

    def download(url, target, *_):
        torch.save(weights, target)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    path = next(p for p in PATHS if p.parts[0] == family and "-polynl_" in p.name)
    config = Config.fromfile(CONFIGS / path)
    init_default_scope(config.default_scope)
    settings = dict(depth=18, pretrained="torchvision://resnet18")
    if family == "i3d":
        settings["inflate"] = (1, 1, 1, 1)
    backbone = MODELS.build(config.model.backbone | settings)
    backbone.init_weights()
    for name in ("layer1.0.conv1", "layer4.1.conv2"):
        layers = backbone.get_submodule(name).modules()
        found = next(m for m in layers if isinstance(m, (nn.Conv2d, nn.Conv3d))).weight
        if found.dim() == 5:  # inflated: the frames' weights add up to the image's
            found = found.sum(dim=2)
        torch.testing.assert_close(found, weights[f"{name}.weight"])
