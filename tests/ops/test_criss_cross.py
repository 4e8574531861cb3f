"""Attention along crossing lines against the masked N x N affinity."""

from functools import partial

import pytest
import torch
from closeness import assert_equal_to_reference
from random_tensors import DTYPES, name_case, projections, strided

from polynl_mm.ops import reference
from polynl_mm.ops.criss_cross import criss_cross

SHAPES = [
    (1,),
    (7,),
    (1, 1),
    (5, 7),
    (1, 6),
    (6, 1),
    (11, 13),
    (1, 1, 1),
    (3, 4, 5),
    (1, 5, 3),
    (4, 1, 3),
    (5, 6, 7),
]


def both(shape, scale=False):
    functions = criss_cross, reference.criss_cross
    return [partial(f, shape=shape, scale=scale) for f in functions]


def positions(shape):
    return torch.Size(shape).numel()


@pytest.mark.parametrize("dtype", DTYPES, ids=name_case)
@pytest.mark.parametrize("scale", [False, True], ids=["plain", "scaled"])
@pytest.mark.parametrize("batch", [1, 3], ids="B{}".format)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_reference(shape, batch, scale, dtype):
    tensors = projections(batch, 4, 6, positions(shape), dtype=dtype)
    if positions(shape) == 1:
        # One position attends to itself, whatever the queries and keys.
        theta, phi = tensors.pop("theta"), tensors.pop("phi")
        fast, slow = (partial(f, theta, phi) for f in both(shape, scale))
    else:
        fast, slow = both(shape, scale)
    assert_equal_to_reference(fast, slow, tensors)


def test_two_rounds_reach_every_position_of_an_image_and_three_of_a_clip():
    for shape in [(4, 5), (3, 4, 5)]:
        n = positions(shape)
        y = torch.eye(n).double().unsqueeze(0)  # what of each position has come here
        flat = torch.zeros(1, 1, n).double()
        for rounds in range(1, len(shape) + 1):
            y = criss_cross(flat, flat, y, shape)
            assert bool((y > 0).all()) == (rounds == len(shape))


@pytest.mark.parametrize("shape", [(5, 8), (2, 4, 5)], ids=str)
def test_strides_do_not_matter(shape):
    assert_equal_to_reference(*both(shape), strided(projections(2, 6, 6, 40)))


@pytest.mark.parametrize("shape", [(2, 3), (2, 1, 3)], ids=str)
def test_gradcheck(shape):
    leaves = [t.requires_grad_() for t in projections(2, 2, 2, 6).values()]
    function = partial(criss_cross, shape=shape)
    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=name_case)
def test_autocast_stays_finite(dtype):
    shape = (32, 56, 56)
    tensors = projections(1, 4, 8, positions(shape), dtype=torch.float32)
    leaves = {k: (30 * v).requires_grad_() for k, v in tensors.items()}
    with torch.autocast("cpu", dtype=dtype):
        y = criss_cross(**leaves, shape=shape)
    assert y.dtype == dtype
    assert y.isfinite().all()
    for grad in torch.autograd.grad(y.float().mean(), leaves.values()):
        assert grad.isfinite().all()
