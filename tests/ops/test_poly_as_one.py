"""Poly-NL's forms as one function: what it costs, and who does not see it."""

import pytest
import torch
from random_tensors import draw
from torch.autograd import forward_ad

from polynl_mm.analysis.cost.memory import peak_extra_memory
from polynl_mm.ops import poly, poly_as_one


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("trains", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("schedule", ["direct", "gram"])
def test_one_function_holds_no_more_than_its_steps(
    schedule, trains, dtype, monkeypatch
):
    """At the same time, and so at the most."""
    features, rows = draw({"x": (4, 128, 784), "w": (3, 32, 128)}).values()
    x, rows = features.to(dtype).requires_grad_(), rows.float() * 0.05
    width = dict(direct=32, gram=128)[schedule]
    rows = rows.repeat(1, width // 32, 1)
    theta, phi, g = (row.requires_grad_() for row in rows.unbind())
    out, one = g.detach().mT.clone().requires_grad_(), torch.ones(1, requires_grad=True)

    def step():
        with torch.set_grad_enabled(trains):
            y = poly.poly_nl(x, theta, phi, out, g, residual=one, schedule=schedule)
        if trains:
            torch.autograd.grad(y, [x, theta, phi, out, g, one], y.detach())

    ours = peak_extra_memory(step, torch.device("cpu"))
    monkeypatch.setattr(poly, "poly_nl_as_one", lambda *given: None)
    steps = peak_extra_memory(step, torch.device("cpu"))
    # Without gradients, what is projected is gone before the output is made.
    saves = schedule == "direct" and not trains
    assert ours <= (0.9 if saves else 1.1) * steps


@pytest.mark.parametrize("schedule", ["direct", "gram"])
def test_transforms_and_tangents_see_the_steps(schedule, monkeypatch):
    """Where both gradients and second ones are prepared, one function does it twice."""
    monkeypatch.setattr(poly_as_one, "_apply", None)
    x, weight = draw({"x": (2, 16, 40), "weight": (4, 16)}).values()
    width = dict(direct=4, gram=16)[schedule]
    weight = weight.repeat(width // 4, 1)

    def run(x):
        return poly.poly_nl(
            x, weight, weight, weight.mT, weight, schedule=schedule
        ).sum()

    of_x = torch.func.grad(run)(x)
    assert torch.func.vmap(run)(torch.stack([x, x])).shape == (2,)
    if schedule == "direct":
        direction = torch.randn_like(x)
        with forward_ad.dual_level():
            y = run(forward_ad.make_dual(x, direction))
            tangent = forward_ad.unpack_dual(y).tangent
        torch.testing.assert_close(tangent, (of_x * direction).sum())


@pytest.mark.parametrize("trained", ["x", "theta", "phi", "out", "g", "residual"])
@pytest.mark.parametrize("schedule", ["direct", "gram"])
def test_frozen_weights_change_no_gradient_of_others(schedule, trained):
    shapes = {"x": (2, 16, 40), "theta": (4, 16), "phi": (4, 16), "g": (4, 16)}
    tensors = draw(shapes | {"out": (16, 4), "residual": (1,)})
    if schedule == "gram":  # which folds where the weights are not thin
        for name in ("theta", "phi", "g"):
            tensors[name] = tensors[name].repeat(4, 1)
        tensors["out"] = tensors["out"].repeat(1, 4)

    def gradient(wanted):
        leaves = {n: t.detach().requires_grad_(n in wanted) for n, t in tensors.items()}
        y = poly.poly_nl(**leaves, schedule=schedule)
        return torch.autograd.grad(y.square().sum(), leaves[trained])[0]

    torch.testing.assert_close(gradient([trained]), gradient(tensors))
