"""Poly-NL's schedules against its reference."""

from functools import partial

import pytest
import torch
from closeness import assert_close, assert_equal_to_reference
from torch.utils._python_dispatch import TorchDispatchMode

from polynl_mm.ops import reference
from polynl_mm.ops.poly import choose_schedule, count_operations, poly_nl

SCHEDULES = ["direct", "gram", "auto"]
DTYPES = [torch.float64, torch.float32]


def make(batch, channels, positions, reduction=1, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=dtype)

    inner = channels // reduction
    tensors = {
        # A mean other than zero, as features behind a ReLU have.
        "x": draw(batch, channels, positions) + 0.3,
        "theta": draw(inner, channels) / channels**0.5,
        "phi": draw(inner, channels) / channels**0.5,
        "out": draw(channels, inner) / inner**0.5,
    }
    if reduction > 1:
        tensors["g"] = draw(inner, channels) / channels**0.5
    return tensors


@pytest.mark.parametrize("reduction", [1, 2, 4])
@pytest.mark.parametrize("positions", [1, 7, 45])
def test_paper_form_is_the_cubic_polynomial(reduction, positions):
    tensors = make(2, 8, positions, reduction)
    assert_equal_to_reference(reference.poly_nl, reference.poly_nl_cubic, tensors)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("reduction", [1, 2, 4])
@pytest.mark.parametrize(
    "batch, channels, positions",
    [(1, 12, 1), (3, 12, 5), (3, 45, 45), (1, 13, 245), (2, 200, 63), (1, 137, 1001)],
    ids=lambda n: str(n),
)
def test_schedule_equals_reference(
    schedule, batch, channels, positions, reduction, dtype
):
    tensors = make(batch, channels, positions, reduction, dtype)
    fast = partial(poly_nl, schedule=schedule)
    assert_equal_to_reference(fast, reference.poly_nl, tensors)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("reduction", [1, 2, 4])
@pytest.mark.parametrize("groups, positions", [(1, 40), (3, 20), (8, 5)])
def test_residual_is_added(schedule, reduction, groups, positions):
    tensors = make(2, 12, groups * positions, reduction)
    tensors["x"] = tensors["x"].unflatten(2, (groups, positions))
    tensors["residual"] = torch.tensor([0.7], dtype=torch.float64)

    def expected(x, residual, **weights):
        parts = [reference.poly_nl(part, **weights) for part in x.unbind(2)]
        return torch.stack(parts, dim=2) + residual * x

    assert_equal_to_reference(partial(poly_nl, schedule=schedule), expected, tensors)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("layout", ["transposed", "sliced", "expanded"])
def test_strides_do_not_matter(schedule, layout):
    tensors = make(2, 16, 40)
    x = tensors["x"]
    strided = {
        "transposed": x.mT.contiguous().mT,  # channels last
        "sliced": torch.stack([x, x], dim=3)[..., 0],
        "expanded": x[:1].expand(2, -1, -1),
    }[layout]
    assert not strided.is_contiguous()
    weights = list(tensors.values())[1:]
    fast = poly_nl(strided, *weights, schedule=schedule)
    assert_close(fast, reference.poly_nl(strided.contiguous(), *weights), layout)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("groups, positions", [(5, 9), (31, 4)])
def test_groups_do_not_see_one_another(schedule, groups, positions):
    tensors = make(2, 12, groups * positions, reduction=2)
    tensors["x"] = tensors["x"].unflatten(2, (groups, positions))

    def one_by_one(x, **weights):
        parts = [reference.poly_nl(part, **weights) for part in x.unbind(2)]
        return torch.stack(parts, dim=2)

    fast = partial(poly_nl, schedule=schedule)
    assert_equal_to_reference(fast, one_by_one, tensors)


@pytest.mark.parametrize("schedule", ["direct", "gram"])
@pytest.mark.parametrize("reduction", [1, 2])
def test_gradcheck_and_second_order(schedule, reduction):
    leaves = [t.requires_grad_() for t in make(2, 4, 6, reduction).values()]
    function = partial(poly_nl, schedule=schedule)
    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)


@pytest.mark.parametrize("schedule", ["direct", "gram"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_stays_finite_and_near(schedule, dtype):
    tensors = make(1, 16, 100_000, dtype=torch.float32)
    tensors["x"] = tensors["x"] * 30
    leaves = {k: v.requires_grad_() for k, v in tensors.items()}
    with torch.autocast("cpu", dtype=dtype):
        output = poly_nl(**leaves, schedule=schedule)
    assert output.dtype == dtype
    output.float().mean().backward()
    for name, leaf in leaves.items():
        assert leaf.grad.isfinite().all(), name
    exact = reference.poly_nl(**{k: v.detach().double() for k, v in tensors.items()})
    error = (output.detach().double() - exact).norm() / exact.norm()
    assert error < (2e-2 if dtype == torch.bfloat16 else 2e-3)


def test_gram_keeps_only_the_input_for_the_backward_pass():
    tensors = make(1, 64, 4000, dtype=torch.float32)
    x = tensors["x"].requires_grad_()
    saved = set()

    def pack(tensor):
        saved.add((tensor.untyped_storage().data_ptr(), tensor.numel()))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        poly_nl(**{**tensors, "x": x * 1}, schedule="gram")
    large = {pointer for pointer, size in saved if size >= x.numel()}
    assert len(large) == 1


def test_auto_takes_the_lower_count():
    # Wide and short: two projections of few positions are cheaper than C x C x C.
    assert choose_schedule(1024, 256, 64, training=False) == "direct"
    # Long clips: one symmetric product is cheaper than two.
    assert choose_schedule(512, 512, 25_088, training=False) == "gram"
    assert choose_schedule(512, 512, 25_088, training=True) == "gram"
    counts = count_operations(512, 128, 25_088, training=False)
    assert counts["direct"] == 2 * 128 * 512 * 25_088


def test_unknown_schedule_is_named():
    with pytest.raises(ValueError, match=r"'direct'.*not 'fast'"):
        poly_nl(**make(1, 4, 4), schedule="fast")


class LargeCopies(TorchDispatchMode):
    """Counts the copies of tensors from a size on."""

    def __init__(self, size):
        super().__init__()
        self.size, self.count = size, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        copies = (torch.ops.aten.clone, torch.ops.aten.copy_, torch.ops.aten._to_copy)
        if func.overloadpacket in copies and result.numel() >= self.size:
            self.count += 1
        return result


@pytest.mark.parametrize("schedule", ["direct", "gram"])
@pytest.mark.parametrize("reduction", [1, 8])
def test_training_lays_no_features_out_anew(schedule, reduction):
    tensors = make(3, 32, 400, reduction, dtype=torch.float32)
    leaves = {k: v.requires_grad_() for k, v in tensors.items()}
    residual = torch.ones(1, requires_grad=True)
    with LargeCopies(leaves["x"].numel() // reduction) as copies:
        output = poly_nl(**leaves, residual=residual, schedule=schedule)
        output.backward(torch.ones_like(output))
    assert copies.count == 0
