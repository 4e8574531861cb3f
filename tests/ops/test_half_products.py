"""Half-precision products: float32 sums, and no features in float32."""

import pytest
import torch
from random_tensors import draw
from torch.utils._python_dispatch import TorchDispatchMode

import polynl_mm
from polynl_mm.ops.half_products import mean_of_products, scale_positions, wide_product

HALVES = [torch.bfloat16, torch.float16]
SHAPES = [(2, 3, 5), (1, 4, 1024), (2, 2, 3, 2500)]


def half(dtype, **shapes):
    return {k: v.to(dtype) for k, v in draw(shapes).items()}.values()


@pytest.mark.parametrize("dtype", [*HALVES, torch.float32, torch.float64])
@pytest.mark.parametrize("positions", [1, 1000, 3001])
def test_wide_product_is_that_of_the_rounded_numbers(dtype, positions):
    left, right = half(dtype, left=(2, 3, positions), right=(2, positions, 4))
    product = wide_product(left, right)
    expected = left.double() @ right.double()
    assert product.dtype == (dtype if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(product.double(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("shape", SHAPES)
def test_means_and_scales_with_gradients(dtype, shape):
    left, right = half(dtype, left=shape, right=shape)
    scale = draw({"scale": shape[:-1]}, dtype=torch.float32)["scale"]

    def run(left, right, scale, of_mean, of_scaled):
        leaves = [t.detach().requires_grad_() for t in (left, right, scale)]
        mean, scaled = of_mean(*leaves[:2]), of_scaled(leaves[0], leaves[2])
        loss = mean.sin().sum() + (scaled.to(scale.dtype) ** 2).sum()
        return [mean, scaled, *torch.autograd.grad(loss, leaves)]

    found = run(left, right, scale, mean_of_products, scale_positions)
    expected = run(
        left.double(),
        right.double(),
        scale.double(),
        lambda a, b: (a * b).mean(-1),
        lambda x, s: x * s.unsqueeze(-1),
    )
    eps = torch.finfo(dtype).eps
    for number, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        error = (ours.double() - theirs).abs().max() / theirs.abs().max()
        assert error <= (1e-5 if number == 0 else 4 * eps), number


def test_sums_do_not_forget():
    """In bfloat16 itself, 256 + 1 is 256."""
    ones = torch.ones(1, 1, 100_000, dtype=torch.bfloat16)
    assert mean_of_products(ones, ones).item() == 1
    assert wide_product(ones, ones.mT).item() == 100_000


def test_products_of_float16_do_not_overflow():
    large = torch.full((1, 1, 5000), 1000.0, dtype=torch.float16)
    assert mean_of_products(large, large).item() == pytest.approx(1e6)
    assert wide_product(large, large.mT).item() == pytest.approx(5e9)


class _Wide(TorchDispatchMode):
    """Remembers the largest float32 tensor that any operation makes."""

    def __init__(self):
        super().__init__()
        self.largest, self.of = 0, ""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            wide = isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float32
            if wide and tensor.numel() > self.largest:
                self.largest, self.of = tensor.numel(), str(function)
        return result


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("axes", ["spacetime", "space"])
@pytest.mark.parametrize(
    "options",
    [dict(schedule="gram"), dict(schedule="direct"), dict(reduction=4, bias=True)],
    ids=["gram", "direct", "reduced"],
)
def test_poly_nl_makes_no_float32_features(dtype, axes, options):
    """On features that are in half already, forward and backward."""
    plugin = polynl_mm.PolyNL3d(32, axes=axes, zero_init=False, **options)
    x = torch.randn(2, 32, 4, 64, 48).to(dtype).requires_grad_()
    with _Wide() as seen:
        with torch.autocast("cpu", dtype=dtype):
            y = plugin(x)
        torch.autograd.grad(y, [x, *plugin.parameters()], torch.ones_like(y))
    assert seen.largest <= x.numel() / 8, seen.of


@pytest.mark.parametrize("dtype", HALVES)
def test_dot_product_makes_no_float32_features(dtype):
    plugin = polynl_mm.NonLocalBlock3d(32, mode="dot_product", zeros_init=False)
    x = torch.randn(2, 32, 4, 64, 48).to(dtype).requires_grad_()
    with _Wide() as seen:
        with torch.autocast("cpu", dtype=dtype):
            y = plugin(x)
        torch.autograd.grad(y, [x, *plugin.parameters()], torch.ones_like(y))
    assert seen.largest <= x.numel() / 8, seen.of
