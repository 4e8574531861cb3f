"""Attention to pooled regions against the regions spelled out."""

from functools import partial

import pytest
import torch
from closeness import assert_equal_to_reference
from random_tensors import DTYPES, name_case, projections, strided

from polynl_mm.ops import reference
from polynl_mm.ops.pyramid import pool_regions, pyramid_non_local

SHAPES = [(1, 1), (7, 5), (12, 9), (1, 1, 1), (3, 5, 7), (4, 8, 6), (1, 9, 4)]
GRIDS = {2: [(1, 1), (2, 3), (6, 6)], 3: [(1, 1, 1), (2, 3, 2), (4, 4, 4)]}


def pool_and_attend(theta, phi, g, *, shape, grids, scale=False):
    key, value = (pool_regions(t, shape, grids) for t in (phi, g))
    return pyramid_non_local(theta, key, value, scale=scale)


def both(shape, scale=False):
    options = {"shape": shape, "grids": GRIDS[len(shape)], "scale": scale}
    fast = partial(pool_and_attend, **options)
    return fast, partial(reference.pyramid_non_local, **options)


def positions(shape):
    return torch.Size(shape).numel()


@pytest.mark.parametrize("dtype", DTYPES, ids=name_case)
@pytest.mark.parametrize("scale", [False, True], ids=["plain", "scaled"])
@pytest.mark.parametrize("batch, width", [(1, 4), (3, 40)])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_reference(shape, batch, width, scale, dtype):
    tensors = projections(batch, width, 6, positions(shape), dtype=dtype)
    assert_equal_to_reference(*both(shape, scale), tensors)


def test_strides_do_not_matter():
    tensors = strided(projections(2, 6, 6, 35))
    assert_equal_to_reference(*both((7, 5)), tensors)


def test_pooling_commutes_with_a_projection():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 6, 60, generator=generator).double()
    weight = torch.randn(4, 6, generator=generator).double()
    shape, grids = (3, 4, 5), GRIDS[3]
    for first, after in zip(
        pool_regions(x, shape, grids),
        pool_regions(weight @ x, shape, grids),
        strict=True,
    ):
        torch.testing.assert_close(weight @ first, after)


def test_gradcheck():
    fast, _ = both((3, 2))
    leaves = [t.requires_grad_() for t in projections(1, 4, 2, 6).values()]
    assert torch.autograd.gradcheck(fast, leaves)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=name_case)
def test_autocast_stays_finite_and_near(dtype):
    shape = (32, 56, 56)
    tensors = projections(1, 16, 16, positions(shape), dtype=torch.float32)
    leaves = {k: (30 * v).requires_grad_() for k, v in tensors.items()}
    options = {"shape": shape, "grids": [(1, 1, 1), (2, 2, 2)], "scale": True}
    with torch.autocast("cpu", dtype=dtype):
        y = pool_and_attend(**leaves, **options)
    assert y.dtype == dtype
    assert y.isfinite().all()
    for grad in torch.autograd.grad(y.float().mean(), leaves.values()):
        assert grad.isfinite().all()
    exact = pool_and_attend(**{k: v.detach() for k, v in leaves.items()}, **options)
    # Similarities are in the hundreds: what half types lose of them shows.
    assert (y.detach().float() - exact).norm() / exact.norm() < 0.1


@pytest.mark.parametrize("grid", [(2, 2), (0, 1, 1)], ids=str)
def test_grid_of_other_axes_is_named(grid):
    with pytest.raises(ValueError, match=r"each of the 3 axes.*got \("):
        pool_regions(torch.ones(1, 2, 8), (2, 2, 2), [grid])
