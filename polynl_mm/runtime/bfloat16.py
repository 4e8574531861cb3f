"""Mixed precision in bfloat16, on CPUs as on GPUs.

Mends: MMEngine's AmpOptimWrapper refuses machines without a GPU. Where there is one,
the tools go on using AmpOptimWrapper.
"""

import contextlib
from collections.abc import Iterator

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.runner.amp import autocast
from torch import nn


@OPTIM_WRAPPERS.register_module()
class Bfloat16OptimWrapper(OptimWrapper):
    """An optimizer wrapper whose forward passes run under bfloat16 autocast.

    bfloat16 has the range of float32: the loss needs no scaling.

    Args:
        **kwargs: As for ``OptimWrapper``.
    """

    @contextlib.contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Run what is inside in mixed precision.

        Args:
            model (nn.Module): The model that is trained.

        Yields:
            None: Nothing.
        """
        with super().optim_context(model), autocast(dtype=torch.bfloat16):
            yield
