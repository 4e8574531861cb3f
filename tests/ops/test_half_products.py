"""Half-precision products: float32 sums, and no features in float32."""

import copy

import pytest
import torch
from pretended_gpu import pretended_gpu
from random_tensors import draw
from torch.utils._python_dispatch import TorchDispatchMode

import polynl_mm
from polynl_mm import plugins
from polynl_mm.ops.half_products import (
    add_scaled,
    mean_of_products,
    scale_positions,
    sum_by_diagonals,
    sum_of_all_products,
    sum_of_axes,
    wide_product,
)

HALVES = [torch.bfloat16, torch.float16]
# Older ones widen on a GPU as on a CPU, but more at a time.
WIDENS = hasattr(torch.ops.aten.bmm, "dtype")
ON_GPU = pytest.mark.parametrize(
    "on_gpu", [False, True] if WIDENS else [False], ids=lambda yes: "on a GPU" * yes
)
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


@pytest.mark.filterwarnings("error:There is a performance drop")
@ON_GPU
@pytest.mark.parametrize(
    "way", ["torch.func.vmap", "torch.func.jvp", "autograd", "is_grads_batched"]
)
def test_wide_product_is_differentiated_and_batched(way, on_gpu):
    left, right = half(torch.bfloat16, left=(3, 2, 3, 300), right=(3, 2, 300, 4))
    expected = left.double() @ right.double()
    with pretended_gpu(on_gpu):
        if way == "torch.func.vmap":
            found = torch.func.vmap(wide_product)(left, right)
        elif way == "torch.func.jvp":  # of what is linear in the first factor
            _, found = torch.func.jvp(
                lambda one: wide_product(one, right[0]), (left[0],), (left[1],)
            )
            expected = left[1].double() @ right[0].double()
        elif way == "autograd":
            leaf, grad = left[0].requires_grad_(), torch.ones(2, 3, 4)
            product = wide_product(leaf, right[0])
            (found,) = torch.autograd.grad(product, leaf, grad)
            expected = grad.double() @ right[0].double().mT
        else:
            of = torch.zeros(2, 3, 4, dtype=torch.bfloat16, requires_grad=True)
            (found,) = torch.autograd.grad(
                _Swapped.apply(of, right[0]), of, left, is_grads_batched=True
            )
            expected = left.double() @ right[0].double()
    assert (found - expected).abs().max() <= 0.01 * expected.abs().max()


class _Swapped(torch.autograd.Function):
    """Whose backward pass makes the product."""

    @staticmethod
    def forward(ctx, of, right):
        ctx.save_for_backward(right)
        return of.new_zeros(2, 3, 300)

    @staticmethod
    def backward(ctx, grad):
        return wide_product(grad, *ctx.saved_tensors), None


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


@pytest.mark.parametrize("dtype", [*HALVES, torch.float32])
@pytest.mark.parametrize("last", [False, True], ids=["", "channels last"])
@pytest.mark.parametrize(("rows", "groups"), [(5, 1), (5, 3), (256, 1), (256, 2)])
@pytest.mark.parametrize("batch", [2, 0])
def test_diagonals_are_the_sums_of_products(dtype, last, rows, groups, batch):
    """What a GPU takes; here it widens its factors as any product does."""
    shape = (batch, rows, groups, 300)
    left, right = half(dtype, left=shape, right=shape)
    if last:
        left, right = (t.to(memory_format=torch.channels_last) for t in (left, right))
    found = sum_by_diagonals(left, right)
    expected = (left.double() * right.double()).sum(-1)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-3)


def test_sums_do_not_forget():
    """In bfloat16 itself, 256 + 1 is 256."""
    ones = torch.ones(1, 1, 100_000, dtype=torch.bfloat16)
    assert mean_of_products(ones, ones).item() == 1
    assert wide_product(ones, ones.mT).item() == 100_000


def test_products_of_float16_do_not_overflow():
    large = torch.full((1, 1, 5000), 1000.0, dtype=torch.float16)
    assert mean_of_products(large, large).item() == pytest.approx(1e6)
    assert sum_of_all_products(large, large).item() == pytest.approx(5e9)
    assert wide_product(large, large.mT).item() == pytest.approx(5e9)


@pytest.mark.parametrize("dtype", [*HALVES, torch.float32, torch.float64])
@pytest.mark.parametrize("added", [True, False])
def test_features_times_one_number_with_gradients(dtype, added):
    y, x, weight = half(dtype, y=(2, 3, 50), x=(2, 3, 50), weight=(2, 3, 50))
    scale = draw({"scale": (1,)}, dtype=torch.float32)["scale"]

    def run(dtype, scale, of):
        leaves = [t.to(dtype).detach().requires_grad_() for t in (y, x)]
        leaves.append(scale.detach().requires_grad_())
        result = of(*leaves)
        loss = (weight.to(dtype) * result.to(dtype)).sum()
        used = leaves[0 if added else 1 :]
        return [result, *torch.autograd.grad(loss, used)]

    found = run(
        dtype, scale, lambda y, x, scale: add_scaled(y if added else None, x, scale)
    )
    expected = run(
        torch.float64,
        scale.to(dtype).double(),
        lambda y, x, scale: y * added + scale * x,
    )
    assert found[0].dtype == dtype and found[-1].dtype == torch.float32
    for ours, theirs in zip(found, expected, strict=True):
        eps = max(torch.finfo(dtype).eps, 1e-7)
        assert (ours - theirs).abs().max() <= 4 * eps * theirs.abs().max()


@pytest.mark.parametrize("shape", [(), (1,)])
@pytest.mark.parametrize("compiled", [False, True])
def test_gradient_of_one_number_does_not_overflow(shape, compiled):
    x = torch.ones(64, 2048, dtype=torch.float16)
    scale = torch.ones(shape, requires_grad=True)
    run = torch.compile(add_scaled, backend="aot_eager") if compiled else add_scaled
    (grad,) = torch.autograd.grad(run(x, x, scale), scale, torch.ones_like(x))
    assert grad.item() == x.numel() > torch.finfo(torch.float16).max


def test_frozen_number_keeps_no_features():
    y = torch.ones(3, 4, dtype=torch.float16, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda _: None):
        add_scaled(y, torch.ones_like(y).detach(), torch.ones(1))
    assert not kept


@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_of_broadcast_parts_sum_in_float32(compiled):
    shapes = [(1, 3, 2, 1, 1), (1, 3, 1, 4, 1), (1, 3, 1, 1, 5)]
    parts = [torch.randn(shape, requires_grad=True) for shape in shapes]
    total = sum_of_axes(parts, torch.float16)
    assert total.dtype == torch.float16
    torch.testing.assert_close(total.float(), sum(parts), rtol=1e-2, atol=1e-2)
    run = torch.compile(sum_of_axes, backend="aot_eager") if compiled else sum_of_axes
    large = torch.full((1, 3, 2, 4, 5), 3e4, dtype=torch.float16)
    grads = torch.autograd.grad(run(parts, torch.float16), parts, large)
    for grad, part in zip(grads, parts, strict=True):
        assert grad.dtype == torch.float32 and grad.shape == part.shape
        expected = 3e4 * 40 / (part.numel() / 3)
        torch.testing.assert_close(
            grad, torch.full_like(grad, expected), rtol=1e-2, atol=0
        )


@pytest.mark.parametrize("create_graph", [False, True])
def test_gradients_of_the_scaled_gradient(create_graph):
    x = torch.randn(2, 3, 4).half().requires_grad_()
    scale = torch.tensor([2.0], requires_grad=True)
    loss = (add_scaled(None, x, scale).float() ** 2).sum()
    (of_scale,) = torch.autograd.grad(loss, scale, create_graph=create_graph)
    assert of_scale.item() == pytest.approx(4 * (x**2).sum().item(), rel=1e-2)
    if create_graph:
        (second,) = torch.autograd.grad(of_scale, x)
        torch.testing.assert_close(second.float(), 8 * x.float(), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in plugins.__all__ if name.endswith("3d")),
        ("PolyNL3d", dict(norm_cfg=dict(type="BN3d"))),
        ("PolyNL3d", dict(positions="sine", reduction=8)),
    ],
)
def test_gradients_of_learned_numbers_do_not_overflow(name, options):
    """A number that scales features has the sum over all of them as its gradient."""
    plugin = getattr(plugins, name)(16, **options)
    numbers = {k: p for k, p in plugin.named_parameters() if p.numel() <= 4}
    if not numbers:
        pytest.skip("it has none")
    x = (torch.rand(2, 16, 4, 64, 64) + 1).half()
    with torch.autocast("cpu", dtype=torch.float16):
        y = plugin(x)
    of_output = torch.rand_like(y)
    found = torch.autograd.grad(y, numbers.values(), of_output)
    exact = copy.deepcopy(plugin).double()
    numbers = [exact.get_parameter(k) for k in numbers]
    expected = torch.autograd.grad(exact(x.double()), numbers, of_output.double())
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-2, atol=1.0)


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
    [
        dict(schedule="gram"),
        dict(schedule="direct"),
        dict(reduction=4, bias=True),
        dict(positions="sine"),
        dict(positions="sine", norm_cfg=dict(type="BN3d")),
        dict(heads=4),
    ],
    ids=["gram", "direct", "reduced", "positions", "norm", "heads"],
)
@ON_GPU
def test_poly_nl_makes_no_float32_features(dtype, axes, options, on_gpu):
    """On features that are in half already, forward and backward."""
    plugin = polynl_mm.PolyNL3d(32, axes=axes, zero_init=False, **options)
    x = torch.randn(2, 32, 4, 64, 48).to(dtype).requires_grad_()
    with pretended_gpu(on_gpu), _Wide() as seen:
        with torch.autocast("cpu", dtype=dtype):
            y = plugin(x)
        torch.autograd.grad(y, [x, *plugin.parameters()], torch.ones_like(y))
    assert seen.largest <= x.numel() / 8, seen.of


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("positions", [None, "sine"])
@ON_GPU
def test_dot_product_makes_no_float32_features(dtype, positions, on_gpu):
    plugin = polynl_mm.NonLocalBlock3d(
        32, mode="dot_product", zeros_init=False, positions=positions
    )
    x = torch.randn(2, 32, 4, 64, 48).to(dtype).requires_grad_()
    with pretended_gpu(on_gpu), _Wide() as seen:
        with torch.autocast("cpu", dtype=dtype):
            y = plugin(x)
        torch.autograd.grad(y, [x, *plugin.parameters()], torch.ones_like(y))
    assert seen.largest <= x.numel() / 8, seen.of
