"""Every trainable parameter in TSM's optimizer.

Mends: ``TSMOptimWrapperConstructor`` of mmaction2 1.2.0 leaves out parameters whose
modules it does not know, such as a plugin's.
"""

import functools
from typing import Any

from torch import nn


def include_all_parameters() -> None:
    """Have MMAction2's optimizer constructor for TSM and TSN leave no parameter out.

    ``TSMOptimWrapperConstructor`` of mmaction2 1.2.0 sorts the parameters of
    convolutions, linear layers and norms into groups, and silently drops those that a
    module with children holds itself, such as ``alpha`` and ``beta`` of ``PolyNL3d``:
    a plugin that starts as the identity would never leave it. Dropped parameters get a
    group with the base learning rate and no weight decay. Where none is dropped,
    nothing changes. Safe to call again.
    """
    from mmaction.engine.optimizers import TSMOptimWrapperConstructor as Constructor

    original = Constructor.add_params
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def add_params(self, params: list[dict], model: nn.Module, **kwargs: Any) -> None:
        original(self, params, model, **kwargs)
        grouped = {id(p) for group in params for p in group["params"]}
        dropped = [
            p for p in model.parameters() if p.requires_grad and id(p) not in grouped
        ]
        if dropped:
            params.append(dict(params=dropped, lr=self.base_lr, weight_decay=0.0))

    Constructor.add_params = add_params
