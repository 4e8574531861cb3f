"""Optimizers that MMEngine builds have groups that torch's compiler knows."""

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.optim import build_optim_wrapper
from torch import nn


@pytest.mark.parametrize("kind", ["SGD", "AdamW"])
def test_steps_compile_with_settings_of_single_parameters(kind):
    config = ConfigDict(
        optimizer=dict(type=kind, lr=0.1, weight_decay=0.5),
        paramwise_cfg=dict(norm_decay_mult=0.0),
    )
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4))
    optimizer = build_optim_wrapper(model, config).optimizer
    groups = optimizer.param_groups
    assert {type(group) for group in groups} == {dict}
    assert {group["weight_decay"] for group in groups} == {0.0, 0.5}
    torch.compiler.reset()

    @torch.compile(backend="eager")
    def step(x):
        model(x).sum().backward()
        optimizer.step()

    before = [p.clone() for p in model.parameters()]
    step(torch.randn(2, 1, 3, 3))
    step(torch.randn(2, 1, 3, 3))
    for parameter, was in zip(model.parameters(), before, strict=True):
        assert parameter.isfinite().all() and not parameter.equal(was)
