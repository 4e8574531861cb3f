"""Mixed precision in bfloat16, on CPUs as on GPUs.

Mends: MMEngine's AmpOptimWrapper refuses machines without a GPU (where there is one,
the tools go on using it), and MMAction2's heads turn their scores into a numpy array,
which has no bfloat16.
"""

import contextlib
import functools
import statistics
import time
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


def measure_slowdown() -> float:
    """Return how many times longer this CPU takes for a convolution in bfloat16.

    Without instructions for the type a CPU converts every number: 20 to 40 times.

    Returns:
        float: The ratio to float32, of the medians of interleaved runs; they take well
        below a second.
    """
    seconds: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    with torch.no_grad():
        for _ in range(5):
            for dtype, times in seconds.items():
                x = torch.zeros(1, 64, 2048, dtype=dtype)
                weight = torch.zeros(64, 64, 1, dtype=dtype)
                start = time.perf_counter()
                nn.functional.conv1d(x, weight)
                times.append(time.perf_counter() - start)
    plain, half = (statistics.median(times) for times in seconds.values())
    return half / plain


def accept_bfloat16_scores() -> None:
    """Have MMAction2's heads compute loss and accuracy of bfloat16 scores in float32.

    The losses do so already, under autocast; other scores are left as they are. Safe to
    call again.
    """
    from mmaction.models.heads import BaseHead

    original = BaseHead.loss_by_feat
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def loss_by_feat(self, cls_scores, data_samples):
        if isinstance(cls_scores, torch.Tensor) and cls_scores.dtype == torch.bfloat16:
            cls_scores = cls_scores.float()
        return original(self, cls_scores, data_samples)

    BaseHead.loss_by_feat = loss_by_feat
