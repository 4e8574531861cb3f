"""TSM's optimizer constructor, mended and as it is."""

import pytest
from mmengine.optim import build_optim_wrapper
from small_backbones import FIVE, build
from torch import nn

from polynl_mm.plugins import Plugin
from polynl_mm.stack.tsm_optimizer import include_all_parameters

CONFIG = dict(
    constructor="TSMOptimWrapperConstructor",
    paramwise_cfg=dict(fc_lr5=True),
    optimizer=dict(type="SGD", lr=0.02, weight_decay=1e-4),
)


class Recognizer(nn.Module):
    """A TSM backbone with a classifier after it, as the constructor expects."""

    def __init__(self, plugins=None):
        super().__init__()
        self.backbone = build("ResNetTSM", plugins)
        self.classifier = nn.Linear(2048, 5)


@pytest.fixture
def original(monkeypatch):
    """Put MMAction2's own constructor back for one test."""
    from mmaction.engine.optimizers import TSMOptimWrapperConstructor as Constructor

    include_all_parameters(Plugin)
    monkeypatch.setattr(Constructor, "add_params", Constructor.add_params.__wrapped__)


def grouped(model):
    groups = build_optim_wrapper(model, CONFIG).param_groups
    return {id(p): group for group in groups for p in group["params"]}


def left_out(model):
    known = grouped(model)
    return [n for n, p in model.named_parameters() if id(p) not in known]


def test_the_original_leaves_alpha_and_beta_out(original):
    model = Recognizer(dict(FIVE, num_segments=8, cfg=dict(type="PolyNL3d")))
    from mmaction.engine.optimizers import TSMOptimWrapperConstructor as Constructor

    mended = Constructor.add_params  # inserting plugins has mended it again
    Constructor.add_params = mended.__wrapped__
    names = left_out(model)
    assert names and all(n.endswith(("alpha", "beta")) for n in names)


def test_mended_it_leaves_nothing_out():
    model = Recognizer(dict(FIVE, num_segments=8, cfg=dict(type="PolyNL3d")))
    assert left_out(model) == []
    group = grouped(model)[id(model.backbone.layer2[1].poly_nl.alpha)]
    assert group["lr"] == 0.02 and group["weight_decay"] == 0


@pytest.mark.parametrize(
    "cfg",
    [
        dict(type="GlobalContext3d"),
        dict(type="PolyNL3d", heads=2),
        dict(type="NonLocalBlock3d", positions="sine"),
        dict(type="EfficientAttention3d", norm_cfg=dict(type="IN3d", affine=True)),
    ],
)
def test_layers_of_plugins_may_be_of_any_kind(cfg):
    model = Recognizer(dict(FIVE, num_segments=8, cfg=cfg))
    assert left_out(model) == []
    model.neck = nn.LayerNorm(8)
    with pytest.raises(ValueError, match="New atomic module type"):
        grouped(model)


def test_without_plugins_the_groups_are_the_originals(original):
    model = Recognizer()
    before = build_optim_wrapper(model, CONFIG).param_groups
    include_all_parameters(Plugin)
    after = build_optim_wrapper(model, CONFIG).param_groups
    assert len(before) == len(after)
    for a, b in zip(before, after, strict=True):
        assert [id(p) for p in a["params"]] == [id(p) for p in b["params"]]
        assert (a["lr"], a["weight_decay"]) == (b["lr"], b["weight_decay"])


def test_mending_twice_is_mending_once():
    from mmaction.engine.optimizers import TSMOptimWrapperConstructor as Constructor

    include_all_parameters(Plugin)
    once = Constructor.add_params
    include_all_parameters(Plugin)
    assert Constructor.add_params is once
