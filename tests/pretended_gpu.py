"""A CPU whose tensors say that they lie on a GPU: its branches, where there is none."""

import contextlib
from collections.abc import Iterator
from unittest import mock

import torch
from torch import Tensor


@contextlib.contextmanager
def pretended_gpu(pretends: bool = True) -> Iterator[None]:
    """Let operations go the ways that they go on a GPU, with the CPU's arithmetic.

    The product that only GPUs have is given to the CPU. As there, autograd, forward
    mode and vmap know nothing of it.

    Args:
        pretends (bool): Whether to; else nothing is changed.
    """
    with contextlib.ExitStack() as stack:
        if pretends:
            says_so = property(lambda _: True)
            stack.enter_context(mock.patch.object(Tensor, "is_cuda", says_so))
            if hasattr(torch.ops.aten.bmm, "dtype"):
                library = torch.library.Library("aten", "IMPL")
                stack.callback(library._destroy)
                library.impl("bmm.dtype", _widening_product, "CPU")
        yield


def _widening_product(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    assert left.dtype == right.dtype in (torch.float16, torch.bfloat16)
    assert dtype == torch.float32
    return torch.bmm(left.to(dtype), right.to(dtype))
