"""Chebyshev filters through the affinity's factors against the full affinity."""

from functools import partial

import pytest
import torch
from closeness import assert_close, assert_equal_to_reference
from random_tensors import DTYPES, draw, name_case, projections, strided

from polynl_mm.ops import reference
from polynl_mm.ops.spectral import spectral

# (B, K, V, N): affinities smaller than their factors, and larger.
CASES = [
    (1, 1, 1, 1),
    (3, 4, 6, 1),
    (1, 8, 5, 7),
    (3, 8, 4, 16),
    (1, 3, 7, 45),
    (3, 8, 8, 245),
    (1, 16, 16, 501),
]


def make(batch, width, value_width, positions, orders, dtype=torch.float64, seed=0):
    tensors = projections(
        batch, width, value_width, positions, dtype=dtype, seed=seed, mean=0
    )
    return tensors | draw({"weight": (orders, 5, value_width)}, dtype=dtype, seed=seed)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_case)
@pytest.mark.parametrize("stable", [False, True], ids=["exact", "stable"])
@pytest.mark.parametrize("order", [0, 1, 2, 4, 7], ids="order{}".format)
@pytest.mark.parametrize("sizes", CASES, ids=name_case)
def test_filter_equals_reference(sizes, order, stable, dtype):
    fast, slow = (partial(f, stable=stable) for f in (spectral, reference.spectral))
    tensors = make(*sizes, order + 1, dtype=dtype)
    if order == 0 or sizes[-1] == 1:
        # Order 0 is the signal alone, and the affinity of one position is one: their
        # gradients of theta and phi are zero, or rounding.
        theta, phi = tensors.pop("theta"), tensors.pop("phi")
        fast, slow = (partial(f, theta, phi) for f in (fast, slow))
    assert_equal_to_reference(fast, slow, tensors)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_case)
@pytest.mark.parametrize("positions", [9, 90], ids=["in_full", "by_factors"])
@pytest.mark.parametrize("order", [1, 2, 5], ids="order{}".format)
def test_positions_without_affinity_stay_zero(order, positions, dtype):
    tensors = make(3, 8, 4, positions, order + 1, dtype=dtype)
    for name in ("theta", "phi"):
        tensors[name][0, :, ::3] = -tensors[name][0, :, ::3].abs()
        tensors[name][1] = -tensors[name][1].abs()  # a sample of none but zero rows
    assert not reference.spectral_affinity(tensors["theta"], tensors["phi"])[1].any()
    assert_equal_to_reference(spectral, reference.spectral, tensors)


@pytest.mark.parametrize("positions", [9, 90], ids=["in_full", "by_factors"])
def test_one_sided_affinity(positions):
    """Where phi is rectified away at some positions and theta at others."""
    tensors = make(1, 8, 4, positions, 3)
    tensors["theta"][..., ::2] = -1
    tensors["phi"][..., 1::2] = -1
    assert_equal_to_reference(spectral, reference.spectral, tensors)


def test_high_orders_stay_accurate_in_float32():
    """The recursion on small matrices does not amplify rounding, over 16 orders."""
    tensors = make(2, 32, 8, 800, 17)
    tensors["weight"] = torch.eye(17).double()[:, :, None].expand(17, 17, 8)
    exact = reference.spectral(**tensors)
    fast = spectral(**{k: v.float() for k, v in tensors.items()})
    for order in range(17):
        assert_close(fast[:, order], exact[:, order].float(), f"order {order}")


@pytest.mark.parametrize("positions", [9, 60], ids=["in_full", "by_factors"])
def test_strides_do_not_matter(positions):
    assert_equal_to_reference(
        spectral, reference.spectral, strided(make(2, 6, 6, positions, 3))
    )


@pytest.mark.parametrize("positions", [4, 8], ids=["in_full", "by_factors"])
@pytest.mark.parametrize("stable", [False, True], ids=["exact", "stable"])
def test_gradcheck(stable, positions):
    leaves = [t.requires_grad_() for t in make(2, 3, 2, positions, 4).values()]
    function = partial(spectral, stable=stable)
    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)


def test_nothing_quadratic_is_saved_for_backward():
    leaves = {k: v.requires_grad_() for k, v in make(1, 8, 8, 1000, 5).items()}
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: sizes.append(t.numel()) or t, lambda t: t
    ):
        spectral(**leaves)
    assert 0 < max(sizes) <= 8 * 1000


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=name_case)
def test_autocast_stays_finite_and_near(dtype):
    tensors = make(1, 8, 8, 100_000, 3, dtype=torch.float32)
    for name in ("theta", "phi", "g"):
        tensors[name] = 30 * tensors[name]
    leaves = {k: v.requires_grad_() for k, v in tensors.items()}
    with torch.autocast("cpu", dtype=dtype):
        y = spectral(**leaves)
    assert y.dtype == dtype
    for grad in torch.autograd.grad(y.float().mean(), leaves.values()):
        assert grad.isfinite().all()
    exact = spectral(**{k: v.detach() for k, v in tensors.items()})
    assert (y.detach().float() - exact).norm() / exact.norm() < 1e-2
