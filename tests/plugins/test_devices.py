"""Plugins work where their features are, and make no GPU wait.

Tried without one: features and weights are elsewhere than new tensors by default, and
the calls are seen that read from a GPU or copy to it. On a GPU
``tests/gpu/test_plugins.py`` asks the driver.
"""

import pytest
import torch
from shared_plugins import build, cases, clip
from torch.overrides import TorchFunctionMode

from polynl_mm.plugins.position_encoding import SinePositions

WAIT = {
    "tensor", "as_tensor", "asarray", "from_numpy", "item", "tolist", "numpy", "cpu",
    "__bool__", "__float__", "__int__", "__index__", "nonzero", "unique", "equal",
    "allclose", "masked_select",
}  # fmt: skip


class Waits(TorchFunctionMode):
    """Keeps which calls would wait for a GPU."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        # A place that is a tensor of booleans has as many elements as are true.
        booleans = name == "__getitem__" and is_boolean(args[1])
        if name in WAIT or booleans:
            self.found.append(name)
        return function(*args, **(kwargs or {}))


def is_boolean(place):
    places = place if isinstance(place, tuple) else (place,)
    return any(isinstance(p, torch.Tensor) and p.dtype == torch.bool for p in places)


@pytest.mark.parametrize(
    ("plugin", "options"), cases(), ids=lambda v: getattr(v, "__name__", str(v))
)
def test_new_tensors_are_where_the_features_are(plugin, options):
    block, x = build(plugin, options), clip(8).requires_grad_()
    with torch.device("meta"):
        block(x).sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize(
    ("plugin", "options"), cases(), ids=lambda v: getattr(v, "__name__", str(v))
)
@pytest.mark.parametrize("training", [False, True])
def test_no_plugin_waits_for_a_gpu(plugin, options, training):
    block, x = build(plugin, options).train(training), clip(8).requires_grad_()
    with Waits() as waits:
        block(x).sum().backward()
    assert waits.found == []


def test_a_wait_is_seen(monkeypatch):
    monkeypatch.setattr(
        "polynl_mm.plugins.position_encoding.torch.stack",
        lambda rows: torch.tensor([[1.0]] * len(rows)) * rows[0],
    )
    with Waits() as waits:
        SinePositions(8, 3, (0,))(torch.ones(1, 8, 4, 2, 2))
        assert bool(torch.ones(1).sum())
    assert waits.found == ["tensor", "__bool__"]
