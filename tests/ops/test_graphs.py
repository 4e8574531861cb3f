"""Every operation under torch.compile (one graph) and torch.export."""

from functools import partial

import pytest
import torch
from closeness import assert_close
from mmengine.utils import digit_version
from random_tensors import draw, projections

from polynl_mm.ops import criss_cross, factored, pairwise, pyramid, spectral

SHAPE = (3, 4, 5)
GRIDS = [(1, 1, 1), (2, 2, 2)]


def pool_and_attend(theta, phi, g):
    key, value = (pyramid.pool_regions(t, SHAPE, GRIDS) for t in (phi, g))
    return pyramid.pyramid_non_local(theta, key, value)


def global_context(theta, phi, g):
    return factored.global_context(theta[:, :1], phi + g)


def chunked_gaussian(theta, phi, g):
    # Values wider than queries, which no fused kernel of a CPU serves.
    return pairwise.gaussian(theta, phi, torch.cat([g, g], dim=1))


def with_weight(function, *shape):
    return partial(function, weight=draw({"weight": shape})["weight"].float())


OPERATIONS = {
    "gaussian": pairwise.gaussian,
    "chunked_gaussian": chunked_gaussian,
    "non_local_stage": pairwise.non_local_stage,
    "dot_product": pairwise.dot_product,
    "concatenation": with_weight(pairwise.concatenation, 16),
    "spectral": with_weight(spectral.spectral, 4, 5, 8),
    "double_attention": factored.double_attention,
    "efficient_attention": partial(factored.efficient_attention, heads=2),
    "global_context": global_context,
    "compact_generalized_dot": factored.compact_generalized_dot,
    "compact_generalized_rbf": factored.compact_generalized_rbf,
    "pyramid_non_local": pool_and_attend,
    "criss_cross": partial(criss_cross.criss_cross, shape=SHAPE),
}


class AsModule(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, theta, phi, g):
        return self.function(theta, phi, g)


def run(function, autocast):
    inputs = projections(2, 8, 8, 60, dtype=torch.float32).values()
    leaves = [t.requires_grad_() for t in inputs]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        y = function(*leaves)
    y = y.float()
    return y.detach(), *torch.autograd.grad(y.square().sum(), leaves)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(pairwise, "_CHUNK", 2000)
    torch.compiler.reset()


# Functions with gradients of their own: torch 2.5 does not follow these two.
NEEDS_NEWER = {"chunked_gaussian", "concatenation"}


def tried(name):
    old = digit_version(torch.__version__) < digit_version("2.6")
    marks = pytest.mark.xfail(old, reason="torch 2.5", strict=False)
    return pytest.param(name, marks=marks if name in NEEDS_NEWER else ())


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "autocast"])
@pytest.mark.parametrize("name", map(tried, OPERATIONS))
def test_compiles_to_one_graph(name, autocast):
    function = OPERATIONS[name]
    compiled = torch.compile(function, fullgraph=True, backend="eager")
    for found, expected in zip(
        run(compiled, autocast), run(function, autocast), strict=True
    ):
        assert_close(found, expected, name)


@pytest.mark.parametrize("name", map(tried, OPERATIONS))
def test_exports(name):
    module = AsModule(OPERATIONS[name])
    inputs = tuple(projections(2, 8, 8, 60, dtype=torch.float32).values())
    exported = torch.export.export(module, inputs).module()
    assert_close(exported(*inputs), module(*inputs), name)
