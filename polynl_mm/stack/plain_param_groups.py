"""Parameter groups of an optimizer as torch makes them.

Mends: with ``paramwise_cfg`` MMEngine 0.10 hands torch's optimizers groups that are its
own ``ConfigDict``. The compiler of torch 2.13 stops at one: ``compile=True`` ends with
an internal error, since MMEngine compiles the optimizer's step, too.
"""

import functools

from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from torch import nn


def make_param_groups_plain() -> None:
    """Have the optimizers that MMEngine builds hold plain dicts. Safe to call again."""
    original = DefaultOptimWrapperConstructor.__call__
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def build(self, model: nn.Module) -> OptimWrapper:
        wrapper = original(self, model)
        groups = wrapper.optimizer.param_groups
        groups[:] = [dict(group) for group in groups]
        return wrapper

    DefaultOptimWrapperConstructor.__call__ = build
