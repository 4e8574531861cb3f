"""The Gram matrix and the application of one matrix a sample, against plain torch."""

from functools import partial

import pytest
import torch
from closeness import assert_close, assert_equal_to_reference
from random_tensors import DTYPES, draw

from polynl_mm.ops.gram import apply_matrix, gram, symmetric_share


def plain_gram(x, with_mean):
    if with_mean:
        x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
    return x @ x.mT / x.shape[2]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("with_mean", [False, True])
@pytest.mark.parametrize("shape", [(1, 3, 1), (2, 70, 33), (1, 257, 300), (3, 9, 45)])
def test_gram_equals_the_plain_product(shape, with_mean, dtype):
    def fast(x):
        return gram(x, with_mean=with_mean)[0]

    expected = partial(plain_gram, with_mean=with_mean)
    assert_equal_to_reference(fast, expected, draw({"x": shape}, dtype))


@pytest.mark.parametrize("with_mean", [False, True])
def test_gradients_of_the_matrix_and_of_what_goes_on_meet(with_mean):
    tensors = draw({"x": (2, 70, 33), "weight": (70, 70)})

    def fast(x, weight):
        product, x = gram(x, with_mean=with_mean)
        return weight @ x + product.sum()

    def expected(x, weight):
        return weight @ x + plain_gram(x, with_mean).sum()

    assert_equal_to_reference(fast, expected, tensors)


@pytest.mark.parametrize("with_mean", [False, True])
def test_gram_of_many_blocks_has_both_derivatives(with_mean, monkeypatch):
    monkeypatch.setattr("polynl_mm.ops.gram._MIN_BLOCK", 1)
    assert symmetric_share(8) == 0.625
    x = draw({"x": (1, 7, 9)})["x"].requires_grad_()

    def both(x):
        product, x = gram(x, with_mean=with_mean)
        return product[:, :7, :7] @ x + product[:, :7, -1:]

    assert torch.autograd.gradcheck(both, (x,))
    assert torch.autograd.gradgradcheck(both, (x,))


def test_half_types_sum_in_float32_over_chunks(monkeypatch):
    monkeypatch.setattr("polynl_mm.ops.gram._HALF_CHUNK", 1000)
    x = draw({"x": (2, 8, 4100)}, torch.float32)["x"].bfloat16()
    product = gram(x, with_mean=True)[0]
    assert product.dtype == torch.float32
    assert_close(product, plain_gram(x.double(), True).float(), "Gram matrix")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("shape", [(1, 3, 1), (2, 70, 33), (3, 9, 45)])
def test_matrix_is_applied(shape, scaled, shifted, dtype):
    batch, channels, _ = shape
    shapes = {"x": shape, "matrix": (batch, channels, channels)}
    shapes |= {"scale": (1,)} if scaled else {}
    shapes |= {"shift": (batch, channels)} if shifted else {}

    def expected(x, matrix, scale=None, shift=None):
        y = matrix @ x
        y = y if scale is None else y + scale * x
        return y if shift is None else y + shift.unsqueeze(2)

    assert_equal_to_reference(apply_matrix, expected, draw(shapes, dtype))


def test_matrix_has_both_derivatives_and_needs_no_gradient_it_is_not_asked_for():
    shapes = {"x": (2, 3, 5), "matrix": (2, 3, 3), "scale": (1,), "shift": (2, 3)}
    leaves = list(draw(shapes).values())
    for needed in ((0, 1, 2, 3), (0,), (1,), (2,), (3,)):
        for index, leaf in enumerate(leaves):
            leaf.requires_grad_(index in needed)
        assert torch.autograd.gradcheck(apply_matrix, leaves)
        assert torch.autograd.gradgradcheck(apply_matrix, leaves)


def test_training_keeps_two_buffers_of_the_features_and_no_third():
    x = draw({"x": (1, 64, 40_000)}, torch.float32)["x"].requires_grad_()
    matrix = draw({"m": (1, 64, 64)}, torch.float32)["m"].requires_grad_()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(saved.append, lambda t: t):
        product, features = gram(x * 1)
        apply_matrix(features, matrix @ product, torch.ones(1))
    large = {t.untyped_storage().data_ptr() for t in saved if t.numel() >= x.numel()}
    # x itself twice at the most: as the input of this graph and as a feature map.
    assert len(large) <= 2
