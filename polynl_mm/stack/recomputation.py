"""What is computed again in the backward pass has its gradients, and counts once.

Mends: MMEngine's ``activation_checkpointing`` and MMAction2's ``with_cp`` do not say in
which form torch is to compute again, and get the re-entrant one: a layer behind frozen
ones gets no gradient in it. In both forms norms of batches count what is computed again
a second time, so that their running statistics move about twice as fast.
"""

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
import torch.utils.checkpoint
from torch import nn
from torch.nn.modules.batchnorm import _NormBase


def compute_again_once() -> None:
    """Mend MMEngine's ``activation_checkpointing``. Safe to call again."""
    mmengine = importlib.import_module("mmengine.runner.activation_checkpointing")
    mmengine.checkpoint = checkpoint


def mend_checkpoints(network: nn.Module) -> None:
    """Mend ``with_cp`` of the modules that a network is made of. Safe to call again.

    Args:
        network (nn.Module): Of MMAction2, or with parts of it.
    """
    mended = SimpleNamespace(**vars(torch.utils.checkpoint))
    mended.checkpoint = checkpoint
    for name in {type(module).__module__ for module in network.modules()}:
        if not name.startswith("mmaction."):
            continue
        names = vars(sys.modules[name])
        for key, value in list(names.items()):
            if value is torch.utils.checkpoint:
                names[key] = mended


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
    contexts = {"context_fn": _contexts}
    if torch.compiler.is_compiling():
        contexts = {}  # one graph of the layer moves its statistics once
    return torch.utils.checkpoint.checkpoint(
        function, *args, use_reentrant=False, **contexts
    )


def _contexts() -> tuple[contextlib.AbstractContextManager, ...]:
    return contextlib.nullcontext(), _without_statistics()


@contextlib.contextmanager
def _without_statistics() -> Iterator[None]:
    """Have norms in training move copies of their running statistics."""
    kept = {}

    def copy_statistics(module: nn.Module, inputs: Any) -> None:
        # Not without statistics: torch keeps what it was given for the backward pass,
        # and is to find as many tensors again.
        if isinstance(module, _NormBase) and module.training and module not in kept:
            kept[module] = dict(module._buffers)
            for name, buffer in kept[module].items():
                module._buffers[name] = buffer if buffer is None else buffer.clone()

    hook = nn.modules.module.register_module_forward_pre_hook(copy_statistics)
    try:
        yield
    finally:
        hook.remove()
        for module, buffers in kept.items():
            module._buffers.update(buffers)
