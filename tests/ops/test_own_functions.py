"""Functions with gradients of their own, as compilers take them."""

import pytest
import torch

from polynl_mm.ops.gram import _ApplyMatrix, _Gram
from polynl_mm.ops.half_products import _Scaled, _SumOfProducts

X = torch.randn(2, 80, 30)
MATRIX, SHIFT, ONE = torch.randn(2, 80, 80), torch.randn(2, 80), torch.ones(1)
HALF = X.bfloat16()
CALLS = {
    "gram": (_Gram, (X, False, False)),
    "gram with a mean": (_Gram, (X, True, False)),
    "gram of half precision": (_Gram, (HALF, True, False)),
    "matrix": (_ApplyMatrix, (X, MATRIX, None, None)),
    "matrix and shift": (_ApplyMatrix, (X, MATRIX, None, SHIFT)),
    "matrix, residual and shift": (_ApplyMatrix, (X, MATRIX, ONE, SHIFT)),
    "in half precision": (
        _ApplyMatrix,
        (HALF, MATRIX.bfloat16(), ONE.bfloat16(), SHIFT.bfloat16()),
    ),
    "sum of products": (_SumOfProducts, (HALF, HALF)),
    "scaled": (_Scaled, (HALF, X[:, :, 0])),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_they_return_was_not_written_in_place(name, monkeypatch):
    """Compiled by torch 2.11, such a result has no gradient, without a word."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    function, inputs = CALLS[name]
    result = function.forward(*inputs)
    for tensor in result if isinstance(result, tuple) else (result,):
        assert tensor._version == 0
