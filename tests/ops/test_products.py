"""One matrix on all positions of a batch: no copies, no gradients larger than it."""

import pytest
import torch
from random_tensors import draw
from torch.utils._python_dispatch import TorchDispatchMode

from polynl_mm.ops.products import project


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that is made, and counts the copies."""

    def __init__(self):
        super().__init__()
        self.size, self.copies = 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            made = result.untyped_storage().nbytes() // result.element_size()
            self.size = max(self.size, made)
            self.copies += function.overloadpacket.__name__ in ("clone", "copy_")
        return result


# (B, C, N), K: few samples of many positions, and pixels whose positions are frames.
@pytest.mark.parametrize(("shape", "width"), [((2, 32, 900), 16), ((500, 32, 8), 64)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_projection_and_what_it_makes(shape, width, channels_last):
    x, weight = draw({"x": shape, "weight": (width, shape[1])}).values()
    if channels_last:
        x = x.mT.contiguous().mT
    x, weight = (t.detach().requires_grad_() for t in (x, weight))
    cotangent = torch.randn_like(project(weight, x))
    expected = torch.einsum("kc,bcn->bkn", weight, x)
    theirs = torch.autograd.grad(expected, [x, weight], cotangent)
    with Largest() as made:
        y = project(weight, x)
        ours = torch.autograd.grad(y, [x, weight], cotangent)
    torch.testing.assert_close(y, expected)
    for found, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, wanted)
    assert made.size <= max(x.numel(), y.numel())
    torch.testing.assert_close(project(weight, x, cotangent), expected + cotangent)
    if shape[2] > shape[1]:
        assert made.copies == 0
