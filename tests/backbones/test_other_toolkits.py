"""The configs of docs/other_toolkits.md, where those toolkits are installed."""

import importlib
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from polynl_mm import PolyNL2d

PAGE = Path(__file__).resolve().parents[2] / "docs" / "other_toolkits.md"
CONFIGS = re.findall(
    r"```python\n(_base_ = '(\w+)::.*?)```", PAGE.read_text("utf-8"), re.DOTALL
)


@pytest.mark.parametrize(("text", "package"), CONFIGS, ids=[c[1] for c in CONFIGS])
def test_five_blocks_in_a_resnet_50(tmp_path, text, package):
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    (tmp_path / "config.py").write_text(text)
    cfg = Config.fromfile(tmp_path / "config.py").model.backbone
    assert cfg.of.startswith(f"{package}.") and cfg.depth == 50
    try:
        importlib.import_module(f"{package}.models")
    except ImportError as error:
        pytest.skip(f"{package} lacks what it needs: {error}")
    backbone = MODELS.build(cfg)
    assert sum(isinstance(m, PolyNL2d) for m in backbone.modules()) == 5
    backbone.eval()  # not chained: it returns None
    with torch.no_grad():
        assert backbone(torch.randn(1, 3, 64, 64))[-1].shape[1] == 2048
