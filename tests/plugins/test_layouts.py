"""channels_last_3d, which users of mixed precision take, goes through as it came."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import polynl_mm

COPIES = ("clone", "copy_", "_to_copy", "contiguous")
LAST = torch.channels_last_3d
CASES = [
    ("PolyNL3d", dict(schedule="gram")),
    ("PolyNL3d", dict(schedule="direct", reduction=4)),
    ("PolyNL3d", dict(reduction=2, bias=True)),
    ("PolyNL3d", dict(positions="sine")),
    ("PolyNL3d", dict(norm_cfg=dict(type="BN3d"))),
    ("NonLocalBlock3d", dict(mode="dot_product", zeros_init=False)),
    ("NonLocalBlock3d", dict(mode="dot_product", positions="sine", zeros_init=False)),
    ("SpectralNL3d", {}),
    ("SpectralNL3d", dict(order=3, num_units=2)),
    ("DoubleAttention3d", {}),
    ("EfficientAttention3d", {}),
    ("GlobalContext3d", {}),
]


class Copies(TorchDispatchMode):
    """Counts the copies of at least so many numbers."""

    def __init__(self, size):
        super().__init__()
        self.size, self.found = size, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        large = isinstance(result, torch.Tensor) and result.numel() >= self.size
        if name in COPIES and large:
            self.found.append(str(function))
        return result


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_features_are_not_laid_out_anew(name, options):
    torch.manual_seed(0)
    options = options if "zeros_init" in options else dict(options, zero_init=False)
    plugin = getattr(polynl_mm, name)(32, **options)
    plain = torch.randn(2, 32, 4, 6, 10, requires_grad=True)
    x = plain.detach().contiguous(memory_format=LAST).requires_grad_()
    cotangent = torch.randn_like(x)
    leaves = [*plugin.parameters()]
    expected_y = plugin(plain)
    expected = torch.autograd.grad(expected_y, [plain, *leaves], cotangent)
    with Copies(x.numel() // 2) as copies:
        y = plugin(x)
        found = torch.autograd.grad(y, [x, *leaves], cotangent)
    assert not copies.found
    assert y.is_contiguous(memory_format=LAST)
    assert found[0].is_contiguous(memory_format=LAST)
    torch.testing.assert_close(y, expected_y, rtol=1e-4, atol=1e-4)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_plain_features_stay_plain(name, options):
    plugin = getattr(polynl_mm, name)(32, **options)
    x = torch.randn(2, 32, 4, 6, 10)
    assert plugin(x).is_contiguous()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(2, 32, 4, 6, 10), (2, 32, 1, 2, 3)], ids=str)
@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_layout_is_kept_in_any_type_at_any_length(name, options, shape, dtype):
    options = options if "zeros_init" in options else dict(options, zero_init=False)
    plugin = getattr(polynl_mm, name)(32, **options).to(dtype)
    x = torch.randn(shape).to(dtype).contiguous(memory_format=LAST).requires_grad_()
    y = plugin(x)
    (of_x,) = torch.autograd.grad(y, x, torch.randn_like(y))
    assert y.is_contiguous(memory_format=LAST)
    assert of_x.is_contiguous(memory_format=LAST)
    if dtype == torch.float32:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert plugin(x).is_contiguous(memory_format=LAST)
