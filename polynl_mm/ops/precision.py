"""In which type the operations multiply, and in which they sum over positions."""

import contextlib

import torch
from torch import Tensor


def compute_dtype(x: Tensor) -> torch.dtype:
    """Return the type in which large products of ``x`` are to be made.

    Args:
        x (Tensor): The input of an operation.

    Returns:
        torch.dtype: Autocast's type where autocast is on for ``x``'s device and
        ``x`` is a floating type that autocast lowers, else the type of ``x``.
    """
    device = x.device.type
    if x.dtype != torch.float64 and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return x.dtype


def accumulate_dtype(x: Tensor) -> torch.dtype:
    """Return the type in which sums over positions of ``x`` accumulate.

    Args:
        x (Tensor): The input of an operation.

    Returns:
        torch.dtype: float64 for float64, float32 for everything else.
    """
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def without_autocast(x: Tensor) -> contextlib.AbstractContextManager:
    """Return a context in which autocast leaves the types of ``x``'s device alone.

    Args:
        x (Tensor): The input of an operation.

    Returns:
        AbstractContextManager: The context; an empty one where autocast is off.
    """
    device = x.device.type
    if torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return contextlib.nullcontext()
