"""The factored blocks against the affinities that they factor."""

from functools import partial

import pytest
import torch
from closeness import assert_equal_to_reference
from random_tensors import DTYPES, draw, name_case, projections, strided

from polynl_mm.ops import factored, reference

# (B, K, V, N queries, M keys).
CASES = [
    (1, 2, 2, 1, 1),
    (3, 8, 8, 1, 1),
    (1, 6, 4, 7, 7),
    (3, 8, 6, 45, 45),
    (1, 12, 20, 245, 245),
    (2, 4, 4, 29, 61),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=name_case)
@pytest.mark.parametrize("sizes", CASES, ids=name_case)
@pytest.mark.parametrize("seed", range(2))
def test_double_attention_equals_reference(sizes, seed, dtype):
    tensors = projections(*sizes, dtype=dtype, seed=seed)
    assert_equal_to_reference(
        factored.double_attention, reference.double_attention, tensors
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=name_case)
@pytest.mark.parametrize("heads", [1, 2], ids="heads{}".format)
@pytest.mark.parametrize("sizes", CASES, ids=name_case)
def test_efficient_attention_equals_reference(sizes, heads, dtype):
    fast = partial(factored.efficient_attention, heads=heads)
    slow = partial(reference.efficient_attention, heads=heads)
    assert_equal_to_reference(fast, slow, projections(*sizes, dtype=dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=name_case)
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("sizes", CASES, ids=name_case)
def test_global_context_equals_reference(sizes, seed, dtype):
    batch, channels, _, positions, _ = sizes
    shapes = {"logits": (batch, 1, positions), "x": (batch, channels, positions)}
    assert_equal_to_reference(
        factored.global_context,
        reference.global_context,
        draw(shapes, dtype=dtype, seed=seed),
    )


KERNELS = {
    "dot": ("compact_generalized_dot", {}),
    "rbf_order3": ("compact_generalized_rbf", {}),
    "rbf_order0": ("compact_generalized_rbf", {"order": 0}),
    "rbf_order5": ("compact_generalized_rbf", {"order": 5, "gamma": 0.3}),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=name_case)
@pytest.mark.parametrize("scale", [False, True], ids=["plain", "scaled"])
@pytest.mark.parametrize("groups", [1, 3], ids="groups{}".format)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "sizes", [(1, 6, 6, 1), (3, 6, 6, 17), (1, 12, 12, 45)], ids=name_case
)
def test_compact_generalized_equals_reference(sizes, kernel, groups, scale, dtype):
    name, options = KERNELS[kernel]
    fast, slow = (
        partial(getattr(module, name), groups=groups, scale=scale, **options)
        for module in (factored, reference)
    )
    tensors = projections(*sizes, dtype=dtype)
    if kernel == "rbf_order0":
        # Its kernel is one number, whatever the queries and keys.
        theta, phi = tensors.pop("theta"), tensors.pop("phi")
        fast, slow = (partial(f, theta, phi) for f in (fast, slow))
    assert_equal_to_reference(fast, slow, tensors)


FUNCTIONS = [
    "double_attention",
    "efficient_attention",
    "compact_generalized_dot",
    "compact_generalized_rbf",
]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_strides_do_not_matter(name):
    fast, slow = getattr(factored, name), getattr(reference, name)
    assert_equal_to_reference(fast, slow, strided(projections(2, 6, 6, 11)))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradcheck(name):
    leaves = [t.requires_grad_() for t in projections(2, 2, 2, 5).values()]
    assert torch.autograd.gradcheck(getattr(factored, name), leaves)
    assert torch.autograd.gradgradcheck(getattr(factored, name), leaves)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=name_case)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_autocast_stays_finite_and_near(name, dtype):
    tensors = projections(1, 8, 8, 100_000, dtype=torch.float32, mean=0)
    # Values off zero, or rounding is all that their mean shows.
    tensors["g"] += 1
    leaves = {k: (30 * v).requires_grad_() for k, v in tensors.items()}
    with torch.autocast("cpu", dtype=dtype):
        y = getattr(factored, name)(**leaves)
    wide = name.startswith("compact")
    assert y.dtype == (torch.float32 if wide else dtype)
    assert y.isfinite().all()
    for grad in torch.autograd.grad(y.float().mean(), leaves.values()):
        assert grad.isfinite().all()
    exact = getattr(factored, name)(**{k: v.detach() for k, v in leaves.items()})
    assert (y.detach().float() - exact).norm() / exact.norm() < 1e-2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=name_case)
@pytest.mark.parametrize("spread", [0.0, 30.0], ids=["even", "peaked"])
def test_global_context_under_autocast(spread, dtype):
    tensors = draw({"logits": (2, 1, 100_000), "x": (2, 8, 100_000)}, torch.float32)
    tensors["logits"] = tensors["logits"] * spread
    tensors["x"] = 30 * tensors["x"] + 30
    exact = reference.global_context(**tensors)
    tensors["logits"] = tensors["logits"].to(dtype)
    with torch.autocast("cpu", dtype=dtype):
        y = factored.global_context(**tensors)
    assert y.dtype == dtype
    assert y.isfinite().all()
    if not spread:
        error = (y.float() - exact).norm() / exact.norm()
        assert error < (5e-3 if dtype == torch.bfloat16 else 1e-3)


@pytest.mark.parametrize(
    "name, options",
    [
        ("efficient_attention", {"heads": 4}),
        ("compact_generalized_dot", {"groups": 4}),
        ("compact_generalized_rbf", {"groups": 0}),
    ],
)
def test_parts_that_do_not_divide_are_named(name, options):
    ((option, value),) = options.items()
    with pytest.raises(ValueError, match=f"{option}={value} does not divide 6"):
        getattr(factored, name)(**projections(1, 6, 6, 5), **options)
