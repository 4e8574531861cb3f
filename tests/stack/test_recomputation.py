"""Layers that are computed again train, and count, as those that keep activations."""

import contextlib
import copy
from functools import partial

import pytest
import torch
from gpu_cases import CASES, IDS
from gpu_cases import build as build_plugin
from mmengine.runner.activation_checkpointing import turn_on_activation_checkpointing
from pretended_gpu import pretended_gpu
from small_backbones import BACKBONES, build
from torch import nn

from polynl_mm.stack.recomputation import checkpoint


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 1),
        nn.Sequential(
            *(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5)),
            *(nn.BatchNorm2d(4, momentum=None), nn.Conv2d(4, 4, 1)),
            *(nn.InstanceNorm2d(4, track_running_stats=True), nn.BatchNorm2d(4).eval()),
            nn.GroupNorm(2, 4),
        ),
    )


def train(model, x):
    """Return the gradients and what the norms keep, after two steps."""
    for _ in range(2):
        torch.manual_seed(1)
        model(x).square().mean().backward()
    gradients = {
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in model.named_parameters()
    }
    return gradients, dict(model.named_buffers())


@pytest.mark.parametrize("frozen", [False, True])
def test_activation_checkpointing_changes_nothing_but_memory(frozen):
    kept = network()
    kept[0].requires_grad_(not frozen)
    again = copy.deepcopy(kept)
    turn_on_activation_checkpointing(again, ["1"])
    runs = []
    again[1][0].register_forward_hook(lambda *_: runs.append(1))
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(train(again, x), train(kept, x), rtol=0, atol=0)
    assert len(runs) == 4, "it is computed again"
    assert kept[1][0].weight.grad.abs().min() > 0


def test_norms_count_again_after_an_error_in_what_is_computed_again():
    model = network()
    turn_on_activation_checkpointing(model, "1")
    y = model(torch.randn(2, 3, 8, 8)).mean()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model[1][6].forward = lambda _: 1 / 0
    with pytest.raises(ZeroDivisionError):
        y.backward()
    torch.testing.assert_close(dict(model.named_buffers()), before, rtol=0, atol=0)
    assert not nn.modules.module._global_forward_pre_hooks


def with_cp(name):
    if name != "ResNet3dSlowFast":
        return {"with_cp": True}
    arguments = BACKBONES[name][0]
    pathways = ("slow_pathway", "fast_pathway")
    return {pathway: dict(arguments[pathway], with_cp=True) for pathway in pathways}


@pytest.mark.parametrize("name", sorted(set(BACKBONES) - {"C2D"}))
def test_with_cp_changes_nothing_but_memory(name):
    _, shape, entry = BACKBONES[name]
    entry = dict(entry, cfg=dict(type="PolyNL3d", zero_init=False))
    kept, again = build(name, entry), build(name, entry, **with_cp(name))
    again.load_state_dict(kept.state_dict())
    x = torch.randn(2 * shape[0], *shape[1:])
    steps = []
    for model in (kept, again):
        model.train()
        runs = []
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.register_forward_hook(lambda *_, runs=runs: runs.append(1))
        y = model(x.clone().requires_grad_())
        sum(part.mean() for part in (y if isinstance(y, tuple) else [y])).backward()
        steps.append((dict(model.named_buffers()), len(runs)))
    (expected, once), (found, twice) = steps
    assert twice > once
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16 of a GPU"])
@pytest.mark.parametrize(("name", "arguments"), CASES, ids=IDS)
def test_every_plugin_is_computed_again_as_it_was(name, arguments, half):
    kept, x = build_plugin(name, arguments)
    again, results = copy.deepcopy(kept), []
    with (
        pretended_gpu() if half else contextlib.nullcontext(),
        torch.autocast("cpu", torch.bfloat16, enabled=half),
    ):
        for plugin, call in ((kept, kept), (again, partial(checkpoint, again))):
            z = x.clone().requires_grad_()
            call(z).float().square().mean().backward()
            gradients = [parameter.grad for parameter in plugin.parameters()]
            results.append([z.grad, *gradients, *plugin.buffers()])
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)


def test_what_a_caller_chooses_is_left_to_it():
    runs = []

    def function(x):
        runs.append(torch.is_grad_enabled())
        return x * x

    x = torch.ones(2, requires_grad=True)
    checkpoint(function, x, use_reentrant=True).sum().backward()
    assert runs == [False, True], "the re-entrant form runs without gradients first"
