"""The dot-product block from its features, against projecting and its reference."""

import pytest
import torch
from closeness import assert_equal_to_reference
from random_tensors import DTYPES, draw

from polynl_mm.analysis.cost.memory import peak_extra_memory
from polynl_mm.ops import reference
from polynl_mm.ops.dot_product_block import dot_product_block, is_cheaper

NAMES = ("theta", "phi", "g", "out")


def make(batch, channels, inner, positions, biases, dtype=torch.float64):
    shapes = {"x": (batch, channels, positions)}
    shapes |= dict.fromkeys(NAMES[:3], (inner, channels))
    shapes["out"] = (channels, inner)
    if biases:
        shapes |= {f"{name}_bias": (inner,) for name in NAMES[:3]}
        shapes["out_bias"] = (channels,)
    tensors = draw(shapes, dtype)
    for name in NAMES:
        tensors[name] = tensors[name] / tensors[name].shape[1] ** 0.5
    return tensors


def folded(residual):
    def block(x, **weights):
        pairs = [(weights[name], weights.get(f"{name}_bias")) for name in NAMES]
        return dot_product_block(x, *pairs, residual=residual)

    return block


def projected(residual):
    def block(x, **weights):
        def project(name, features):
            y = weights[name] @ features
            bias = weights.get(f"{name}_bias")
            return y if bias is None else y + bias.unsqueeze(1)

        y = reference.dot_product(*(project(name, x) for name in NAMES[:3]))
        y = project("out", y)
        return x + y if residual else y

    return block


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(
    "sizes", [(1, 4, 2, 1), (3, 6, 5, 45), (2, 70, 35, 101), (1, 5, 9, 7)], ids=str
)
def test_equals_projecting(sizes, biases, residual, dtype):
    tensors = make(*sizes, biases, dtype)
    assert_equal_to_reference(folded(residual), projected(residual), tensors)


def test_has_both_derivatives():
    tensors = make(2, 4, 2, 6, biases=True)
    leaves = [t.requires_grad_() for t in tensors.values()]

    def block(*values):
        return folded(True)(**dict(zip(tensors, values, strict=True)))

    assert torch.autograd.gradcheck(block, leaves)
    assert torch.autograd.gradgradcheck(block, leaves)


def test_stays_finite_in_float16():
    tensors = make(1, 64, 32, 2000, biases=True, dtype=torch.float32)
    tensors["x"] = tensors["x"] * 30
    tensors |= {name: tensors[name] * 0.3 for name in NAMES}
    with torch.autocast("cpu", dtype=torch.float16):
        output = folded(True)(**tensors)
    expected = projected(True)(**{k: v.double() for k, v in tensors.items()})
    # In range, as it would not be without the division by N.
    assert 4e4 < expected.abs().max() * 10 < 6e5
    assert (output.double() - expected).norm() / expected.norm() < 2e-3


def test_is_chosen_where_it_pays():
    # The usual half width: where there are more positions than channels.
    assert is_cheaper(512, 256, 6272, training=False)
    assert is_cheaper(512, 256, 6272, training=True)
    assert not is_cheaper(1024, 512, 784, training=False)
    # An eighth of the width: the projections are thin.
    assert not is_cheaper(512, 64, 6272, training=False)


@pytest.mark.parametrize("last", [False, True], ids=["", "channels last"])
def test_training_holds_the_output_and_one_gradient(last):
    """And writes into neither the features nor the gradient that comes to it."""
    torch.manual_seed(0)
    x = torch.randn(2, 64, 4096)
    x = x.mT.contiguous().mT if last else x
    weights = {n: torch.randn(64, 64, requires_grad=True) * 0.02 for n in NAMES}
    grad = torch.randn_like(x)
    kept = x.clone(), grad.clone()
    x.requires_grad_()

    def step():
        pairs = ((weight, None) for weight in weights.values())
        dot_product_block(x, *pairs).backward(grad, retain_graph=True)
        x.grad = None

    peak = peak_extra_memory(step, torch.device("cpu"))
    assert peak < 2.4 * x.numel() * x.element_size()
    assert torch.equal(x, kept[0]) and torch.equal(grad, kept[1])
