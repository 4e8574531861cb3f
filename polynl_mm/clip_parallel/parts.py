"""The parts of a clip computed together in one process, each seeing all.

Each part runs in a thread of its own, through a copy of the module that has the same
parameters; the threads meet where the parts ask one another. Autograd goes from part to
part as through any other sum.
"""

import copy
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

from polynl_mm.ops.own_functions import is_transformed
from polynl_mm.ops.summaries import shared_among


class _Parts:
    """A :class:`polynl_mm.ops.summaries.Holder` of parts in threads."""

    def __init__(self, count: int):
        self._own = threading.local()
        self._barrier = threading.Barrier(count)
        self._given: list = [None] * count

    def enter(self, index: int) -> None:
        """Say which part this thread computes."""
        self._own.index = index

    def abort(self) -> None:
        """Let no thread wait for one that has failed."""
        self._barrier.abort()

    def _exchange(self, given) -> list:
        self._given[self._own.index] = given
        self._barrier.wait()
        all_given = list(self._given)
        self._barrier.wait()
        return all_given

    def sum(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the sums over all parts."""
        terms = zip(*self._exchange(tensors), strict=True)
        return tuple(sum(of_parts[1:], of_parts[0]) for of_parts in terms)

    def max(self, tensor: Tensor) -> Tensor:
        """Return the greatest over all parts, without gradients."""
        return torch.stack(self._exchange(tensor.detach())).amax(dim=0)

    def gather(self, tensor: Tensor, dim: int) -> Tensor:
        """Return all parts in their order."""
        return torch.cat(self._exchange(tensor), dim)

    def place(self, length: int) -> tuple[int, int]:
        """Return where this part begins, and how long the whole is."""
        lengths = self.lengths(length)
        return sum(lengths[: self._own.index]), sum(lengths)

    def lengths(self, length: int) -> tuple[int, ...]:
        """Return how long every part is."""
        return tuple(self._exchange(length))


def together(
    module: nn.Module,
    parts: Sequence[Tensor],
    through: Callable | None = None,
) -> list[Tensor]:
    """Compute a module on the parts of a clip, as on the whole.

    Args:
        module (nn.Module): Plugins, or a network whose other layers know no time.
        parts (Sequence[Tensor]): The parts in their order, (B, C, T, H, W) with any
            number of frames in each.
        through (Callable, optional): Makes another holder of the parts' own, such as
            one that counts what travels.

    Returns:
        list[Tensor]: What the module makes of each part.

    Raises:
        ValueError: As the module.
        RuntimeError: Within a transform of ``torch.func``, which would not see the
            threads that compute the parts.
    """
    if is_transformed(*parts):
        raise RuntimeError(
            "The parts of a clip are computed in threads, into which torch.func's "
            "grad, jvp and vmap do not follow: take torch.autograd.grad or "
            "forward_ad.dual_level, or transform the module on the whole clip."
        )
    holder = _Parts(len(parts))
    others = holder if through is None else through(holder)
    same = {id(p): p for p in module.parameters()}
    copies = [copy.deepcopy(module, dict(same)) for _ in parts]
    settings = (torch.is_grad_enabled(), torch.is_inference_mode_enabled())
    device = parts[0].device.type
    lowered = torch.is_autocast_enabled(device)
    lower = torch.get_autocast_dtype(device)

    def compute(index: int) -> Tensor:
        holder.enter(index)
        grad, inference = settings
        try:
            with (
                torch.inference_mode(inference),
                torch.set_grad_enabled(grad),
                torch.autocast(device, lower, enabled=lowered),
            ):
                return copies[index](parts[index])
        except BaseException:
            holder.abort()
            raise

    with shared_among(others), ThreadPoolExecutor(len(parts)) as threads:
        futures = [threads.submit(compute, index) for index in range(len(parts))]
    failed = [f.exception() for f in futures if f.exception() is not None]
    for error in failed:
        if not isinstance(error, threading.BrokenBarrierError):
            raise error
    if failed:
        raise failed[0]
    with torch.no_grad():
        for own, kept in zip(copies[0].buffers(), module.buffers(), strict=True):
            kept.copy_(own)  # a norm's statistics
    return [f.result() for f in futures]
