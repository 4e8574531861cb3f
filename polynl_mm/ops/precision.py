"""In which type the operations multiply, and in which they sum over positions.

What is subtracted must be rounded alike. The gradient of a softmax is a difference of
terms that nearly cancel: each logit's gradient minus the mean of all. Take the two from
different products, and what is left of large features is the difference of their
roundings, not the gradient. So a backward pass takes the mean from the very numbers
that it is subtracted from, a softmax is rebuilt from its logits and not from a stored
log-sum-exp, and a variance is never a mean of squares minus a squared mean.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# What an older compiler does not follow.
_ASKS_FOR_STRIDES = torch.__version__ >= (2, 6)


def compute_dtype(*tensors: Tensor) -> torch.dtype:
    """Return the type in which large products of the tensors are to be made.

    Args:
        *tensors (Tensor): The inputs of an operation. Autocast hands it a mixture of
            types where some are the features and some their projections.

    Returns:
        torch.dtype: The widest type among them; autocast's type where autocast is on
        for their device and that widest type is one that autocast lowers.
    """
    dtype = functools.reduce(torch.promote_types, (t.dtype for t in tensors))
    device = tensors[0].device.type
    if dtype != torch.float64 and _autocasts(device):
        return torch.get_autocast_dtype(device)
    return dtype


def accumulate_dtype(*tensors: Tensor) -> torch.dtype:
    """Return the type in which sums over positions of the tensors accumulate.

    Args:
        *tensors (Tensor): The inputs of an operation.

    Returns:
        torch.dtype: float64 for float64, float32 for everything else.
    """
    wide = any(t.dtype == torch.float64 for t in tensors)
    return torch.float64 if wide else torch.float32


def without_autocast(x: Tensor) -> contextlib.AbstractContextManager:
    """Return a context in which autocast leaves the types of ``x``'s device alone.

    Args:
        x (Tensor): The input of an operation.

    Returns:
        AbstractContextManager: The context; an empty one where autocast is off.
    """
    device = x.device.type
    if _autocasts(device):
        return torch.autocast(device, enabled=False)
    return contextlib.nullcontext()


def outside_autocast(backward: Callable) -> Callable:
    """Let a backward pass make its own types, also where autocast is still on.

    A loss is mostly differentiated outside of autocast, but nothing keeps a user from
    doing it inside, and then products would come out in other types than their buffers.

    Args:
        backward (Callable): ``backward(ctx, *gradients)`` of an autograd function.

    Returns:
        Callable: The same, with autocast off.
    """

    @functools.wraps(backward)
    def run(ctx, *gradients: Tensor | None) -> Any:
        given = [grad for grad in gradients if grad is not None]
        if not given:
            return backward(ctx, *gradients)
        device = given[0].device.type
        if not torch.compiler.is_compiling() or device == "meta":
            with without_autocast(given[0]):
                return backward(ctx, *gradients)
        # A compiler reads this where the function is applied, and may run it where
        # autocast is on though it was off there. It starts again where a stride is
        # asked for, and does not leave the context before it does.
        for grad in given if _ASKS_FOR_STRIDES else ():
            grad.stride()
        with torch.autocast(device, enabled=False):
            return backward(ctx, *gradients)

    return run


def cast(dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Bring tensors to one type.

    Args:
        dtype (torch.dtype): The type.
        *tensors (Tensor): Tensors of any types.

    Returns:
        tuple[Tensor, ...]: The tensors in that type.
    """
    return tuple(t.to(dtype) for t in tensors)


def _autocasts(device: str) -> bool:
    # Counting operations runs on the meta device, which autocast does not know.
    return device != "meta" and torch.is_autocast_enabled(device)
