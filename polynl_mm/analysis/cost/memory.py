"""The most memory that a call holds at once, beyond what was there before it."""

import os
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

# The profiler says on stderr that it starts and stops, in the midst of progress bars.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")


def peak_extra_memory(
    function: Callable[[], Any], device: torch.device, warm_up: bool = True
) -> int:
    """Measure the peak of what a call allocates through torch.

    On a CPU from the allocations that torch's profiler records, which libraries'
    own scratch space escapes; on CUDA from the caching allocator.

    Args:
        function (Callable): The call.
        device (torch.device): Where it runs.
        warm_up (bool): Run it once before, so that what is made at the first call
            only is not counted.

    Returns:
        int: Bytes, at least 0.
    """
    if warm_up:
        function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        function()
    changes = sorted(
        (event.start_ns(), event.nbytes())
        for event in recorded.profiler.kineto_results.events()
        if event.name() == "[memory]"
    )
    held = peak = 0
    for _, size in changes:
        held += size
        peak = max(peak, held)
    return peak
