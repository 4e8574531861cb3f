"""Layers that are computed again train, and count, as those that keep activations."""

import contextlib
import copy
import sys
from functools import partial

import pytest
import torch
from gpu_cases import CASES, IDS
from gpu_cases import build as build_plugin
from mmengine.runner.activation_checkpointing import turn_on_activation_checkpointing
from pretended_gpu import pretended_gpu
from small_backbones import BACKBONES, build
from torch import nn

from polynl_mm import PolyNL3d
from polynl_mm.ops.summaries import shared_among
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


@pytest.mark.parametrize("names", [["1.1"], ["1", "1.1"], ["1", "1"], [""]], ids=str)
def test_whatever_is_named(names):
    kept, again = network(), network()
    if names == [""]:  # the network itself
        again.forward = partial(checkpoint, again.forward)
    else:
        turn_on_activation_checkpointing(again, names)
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(train(again, x), train(kept, x), rtol=0, atol=0)


def test_several_backward_passes_of_one_graph():
    kept, again = network(), network()
    turn_on_activation_checkpointing(again, ["1"])
    x, results = torch.randn(2, 3, 8, 8), []
    for model in (kept, again):
        torch.manual_seed(1)
        z = x.clone().requires_grad_()
        loss = model(z).square().mean()
        loss.backward(retain_graph=True)
        (slope,) = torch.autograd.grad(loss, z, create_graph=True)
        slope.square().sum().backward()
        results.append([z.grad, *(p.grad for p in model.parameters())])
        results[-1] += model.buffers()
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-7)


def test_layers_that_take_arguments_by_name():
    class Named(nn.Linear):
        def forward(self, x, *, scale):
            return super().forward(x) * scale

    model = nn.ModuleDict({"head": Named(2, 2)})
    turn_on_activation_checkpointing(model, "head")
    model["head"](torch.ones(1, 2), scale=2.0).sum().backward()
    torch.testing.assert_close(model["head"].weight.grad, torch.full((2, 2), 2.0))


class Alone:
    """Nobody holds another part of the clip."""

    def sum(self, *tensors):
        return tensors


def test_norms_of_a_plugin_whose_clip_others_share():
    plugin = PolyNL3d(8, norm_cfg=dict(type="BN3d"))
    x = torch.randn(2, 8, 2, 4, 4, requires_grad=True)
    with shared_among(Alone()):
        checkpoint(plugin, x).sum().backward()
    assert plugin.norm.num_batches_tracked == 1
    assert not nn.modules.module._global_forward_pre_hooks


def with_cp(name):
    if name != "ResNet3dSlowFast":
        return {"with_cp": True}
    arguments = BACKBONES[name][0]
    pathways = ("slow_pathway", "fast_pathway")
    return {pathway: dict(arguments[pathway], with_cp=True) for pathway in pathways}


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_with_cp_changes_nothing_but_memory(name, monkeypatch):
    _, shape, entry = BACKBONES[name]
    entry = dict(entry, cfg=dict(type="PolyNL3d", zero_init=False))
    for module, loaded in list(sys.modules.items()):  # as in a new process
        if module.startswith("mmaction.models.") and hasattr(loaded, "cp"):
            monkeypatch.setattr(loaded, "cp", torch.utils.checkpoint)
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
