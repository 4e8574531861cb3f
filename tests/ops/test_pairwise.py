"""The pairwise schedules against the N x N definitions."""

from functools import partial

import pytest
import torch
from closeness import assert_equal_to_reference
from random_tensors import DTYPES, draw, name_case, projections, strided

from polynl_mm.ops import pairwise, reference

# (B, K, V, N queries, M keys): few and many keys, odd sizes, one position, equal and
# different widths, more keys than queries and fewer.
CASES = [
    (1, 1, 1, 1, 1),
    (3, 8, 8, 1, 1),
    (1, 5, 3, 7, 1),
    (3, 8, 6, 45, 45),
    (1, 13, 13, 63, 63),
    (3, 4, 4, 245, 61),
    (1, 32, 16, 29, 17),
    (2, 6, 6, 30, 77),
    (1, 16, 16, 501, 501),
]
SCALED = [False, True]


@pytest.fixture(params=["fused", "chunked"])
def schedule(request, monkeypatch):
    """Both ways forward through many keys; backward there is one, of many chunks."""
    monkeypatch.setattr(pairwise, "_CHUNK", 700)
    if request.param == "chunked":
        monkeypatch.setattr(pairwise, "has_fused_kernel", lambda *_: False)
    return request.param


@pytest.mark.parametrize("dtype", DTYPES, ids=name_case)
@pytest.mark.parametrize("scale", SCALED, ids=["plain", "scaled"])
@pytest.mark.parametrize("sizes", CASES, ids=name_case)
@pytest.mark.parametrize("name", ["gaussian", "non_local_stage"])
def test_softmax_equals_reference(name, sizes, scale, dtype, schedule):
    if name == "non_local_stage":
        sizes = (*sizes[:4], sizes[3])
    fast, slow = (
        partial(getattr(module, name), scale=scale) for module in (pairwise, reference)
    )
    assert_equal_to_reference(fast, slow, projections(*sizes, dtype=dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=name_case)
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("sizes", CASES, ids=name_case)
def test_dot_product_equals_reference(sizes, seed, dtype):
    tensors = projections(*sizes, dtype=dtype, seed=seed)
    assert_equal_to_reference(pairwise.dot_product, reference.dot_product, tensors)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_case)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sizes", CASES, ids=name_case)
def test_concatenation_equals_reference(sizes, seed, dtype):
    tensors = projections(*sizes, dtype=dtype, seed=seed)
    tensors |= draw({"weight": (2 * sizes[1],)}, dtype=dtype, seed=seed + 9, mean=0)
    assert_equal_to_reference(pairwise.concatenation, reference.concatenation, tensors)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_case)
@pytest.mark.parametrize("shift", [-100.0, 0.0, 100.0], ids=["none", "some", "all"])
def test_concatenation_with_ties(shift, dtype):
    """Equal keys, sums of exactly zero, and queries that see no key or every key."""
    tensors = projections(2, 1, 5, 60, dtype=dtype)
    tensors["theta"] = tensors["theta"].mul(3).round() + shift
    tensors["phi"] = tensors["phi"].mul(3).round()
    tensors["weight"] = torch.ones(2, dtype=dtype)
    sums = tensors["theta"].mT + tensors["phi"]
    assert shift or ((sums == 0).any() and (sums > 0).any() and (sums < 0).any())
    if shift >= 0:
        assert_equal_to_reference(
            pairwise.concatenation, reference.concatenation, tensors
        )
        return
    leaves = {k: v.requires_grad_() for k, v in tensors.items()}
    y = pairwise.concatenation(**leaves)
    assert not y.any()
    assert not any(g.any() for g in torch.autograd.grad(y.sum(), leaves.values()))


@pytest.mark.parametrize("dtype", DTYPES, ids=name_case)
@pytest.mark.parametrize("offset", [0.0, 1e3], ids=["centred", "offset"])
@pytest.mark.parametrize(
    "sizes", [(1, 1, 3, 40, 25_088), (1, 1, 3, 25_088, 40)], ids=name_case
)
def test_concatenation_of_a_long_clip_stays_exact(sizes, offset, dtype):
    """Prefix sums of 25 088 terms, over the keys and, backward, over the queries."""
    tensors = projections(*sizes, dtype=dtype)
    tensors["phi"] += offset
    tensors["theta"] -= offset
    tensors["weight"] = torch.ones(2, dtype=dtype)
    assert_equal_to_reference(pairwise.concatenation, reference.concatenation, tensors)


@pytest.mark.parametrize("name", ["gaussian", "dot_product", "concatenation"])
def test_strides_do_not_matter(name, schedule):
    tensors = projections(2, 6, 6, 40)
    views = strided(tensors)
    extra = {"weight": torch.randn(12).double()} if name == "concatenation" else {}
    fast = partial(getattr(pairwise, name), **extra)
    slow = partial(getattr(reference, name), **extra)
    assert_equal_to_reference(fast, slow, views)


@pytest.mark.parametrize("keys", [4, 9], ids=["few_keys", "many_keys"])
@pytest.mark.parametrize("name", ["gaussian", "dot_product", "concatenation"])
def test_gradcheck(name, keys, schedule):
    tensors = projections(2, 4, 4, 6, keys)
    if name == "concatenation":
        tensors |= draw({"weight": (8,)})
    leaves = [t.requires_grad_() for t in tensors.values()]
    function = getattr(pairwise, name)
    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)


@pytest.mark.parametrize("name", ["gaussian", "dot_product", "concatenation"])
def test_nothing_quadratic_is_saved_for_backward(name, schedule):
    tensors = projections(1, 8, 8, 1000, dtype=torch.float32)
    if name == "concatenation":
        tensors |= draw({"weight": (16,)}, dtype=torch.float32)
    leaves = {k: v.requires_grad_() for k, v in tensors.items()}
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: sizes.append(t.numel()) or t, lambda t: t
    ):
        getattr(pairwise, name)(**leaves)
    assert 0 < max(sizes) <= 8 * 1000


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=name_case)
@pytest.mark.parametrize("name", ["dot_product", "concatenation"])
def test_autocast_stays_finite_and_near(name, dtype):
    tensors = projections(1, 8, 8, 100_000, dtype=torch.float32)
    tensors = {k: 30 * v for k, v in tensors.items()}
    if name == "concatenation":
        tensors |= draw({"weight": (16,)}, dtype=torch.float32, mean=0)
        tensors["weight"] /= 4
    leaves = {k: v.requires_grad_() for k, v in tensors.items()}
    with torch.autocast("cpu", dtype=dtype):
        y = getattr(pairwise, name)(**leaves)
    assert y.dtype == dtype
    assert y.isfinite().all()
    for grad in torch.autograd.grad(y.float().mean(), leaves.values()):
        assert grad.isfinite().all()
    exact = getattr(pairwise, name)(**{k: v.detach() for k, v in tensors.items()})
    error = (y.detach().float() - exact).norm() / exact.norm()
    assert error < (2e-2 if dtype == torch.bfloat16 else 3e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=name_case)
@pytest.mark.parametrize("keys", [8, 300], ids=["few_keys", "many_keys"])
def test_softmax_under_autocast_stays_finite(keys, dtype, schedule):
    tensors = projections(1, 16, 16, 500, keys, dtype=torch.float32)
    leaves = [(30 * t).requires_grad_() for t in tensors.values()]
    with torch.autocast("cpu", dtype=dtype):
        y = pairwise.gaussian(*leaves)
    assert y.dtype == dtype
    assert y.isfinite().all()
    for grad in torch.autograd.grad(y.float().mean(), leaves):
        assert grad.isfinite().all()


def test_mixed_types_take_the_widest():
    tensors = projections(1, 4, 4, 9, dtype=torch.float32)
    tensors["g"] = tensors["g"].bfloat16()
    for name in ("gaussian", "dot_product"):
        assert getattr(pairwise, name)(**tensors).dtype == torch.float32
