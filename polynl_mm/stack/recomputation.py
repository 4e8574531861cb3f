"""What is computed again in the backward pass has its gradients, and counts once.

Mends: MMEngine's ``activation_checkpointing`` and MMAction2's ``with_cp`` do not say in
which form torch is to compute again, and get the re-entrant one: a layer behind frozen
ones gets no gradient in it. In both forms norms of batches count what is computed again
a second time, so that their running statistics move about twice as fast.
"""

import contextlib
import functools
import importlib
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
import torch.utils.checkpoint
from torch import nn
from torch.nn.modules.batchnorm import _NormBase


def mend_activation_checkpointing() -> None:
    """Mend MMEngine's ``activation_checkpointing``. Safe to call again."""
    mmengine = importlib.import_module("mmengine.runner.activation_checkpointing")
    mmengine.wrap_forward = _wrap_forward


def mend_with_cp() -> None:
    """Mend ``with_cp`` of those of MMAction2's networks that have been imported."""
    mended = SimpleNamespace(**vars(torch.utils.checkpoint))
    mended.checkpoint = checkpoint
    for name, module in list(sys.modules.items()):
        if name.startswith("mmaction.models."):
            for key, value in list(vars(module).items()):
                if value is torch.utils.checkpoint:
                    setattr(module, key, mended)


def checkpoint(function: Callable, *args: Any, **options: Any) -> Any:
    """Call a function that is called again in the backward pass.

    Args:
        function (Callable): Its activations are not kept.
        args: Its arguments.
        options: Of torch's own ``checkpoint``, which is left alone then.

    Returns:
        Any: What it returns.
    """
    if options:
        return torch.utils.checkpoint.checkpoint(function, *args, **options)
    return _wrap_forward(function)(*args)


def _wrap_forward(forward: Callable) -> Callable:
    @functools.wraps(forward)
    def wrapper(*args, **kwargs):
        if torch.compiler.is_compiling():
            options = {}  # one graph of the layer moves its statistics once
        else:
            options = {"context_fn": functools.partial(_contexts, forward)}
        return torch.utils.checkpoint.checkpoint(
            forward, *args, use_reentrant=False, **options, **kwargs
        )

    return wrapper


def _contexts(forward: Callable) -> tuple[contextlib.AbstractContextManager, ...]:
    return contextlib.nullcontext(), _StatisticsOfCopies(forward)


class _StatisticsOfCopies:
    """While entered, norms in training move copies of their running statistics.

    Copies, and not none: torch keeps what a norm was given for the backward pass, and
    is to find as many tensors again. It is entered in each backward pass of a graph.

    Args:
        forward (Callable): What is computed again, perhaps a module's own method.
    """

    def __init__(self, forward: Callable) -> None:
        self._owner = getattr(forward, "__self__", None)
        self._entered = []

    def __enter__(self) -> None:
        kept, seen = {}, set()

        def copy_statistics(module: nn.Module, inputs: Any = None) -> None:
            if module in seen:
                return
            for part in module.modules():  # which it may apply without a call
                seen.add(part)
                if isinstance(part, _NormBase) and part.training and part not in kept:
                    kept[part] = dict(part._buffers)
                    for name, buffer in kept[part].items():
                        if buffer is not None:
                            part._buffers[name] = buffer.clone()

        if isinstance(self._owner, nn.Module):
            copy_statistics(self._owner)
        hook = nn.modules.module.register_module_forward_pre_hook(copy_statistics)
        self._entered.append((hook, kept))

    def __exit__(self, *error: object) -> None:
        hook, kept = self._entered.pop()
        hook.remove()
        for module, buffers in kept.items():
            module._buffers.update(buffers)
