"""Real training steps of a config's recognizer: their time, and what they hold."""

import contextlib
import gc
import logging
import math
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import Tensor

from polynl_mm.analysis.cost.memory import peak_extra_memory
from polynl_mm.recognizers.building import build_recognizer


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keep what the stack remarks on each build out of a progress bar."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)


class Trainer:
    """A recognizer with its optimizer, and random clips to train on.

    Args:
        cfg (Config): The config.
        name (str): What to call it in sentences.
        device (torch.device): Where it runs.
    """

    def __init__(self, cfg: Config, name: str, device: torch.device) -> None:
        torch.manual_seed(0)
        self.device = device
        # Building it takes away what it builds.
        wrapper = Config(dict(optim=cfg.optim_wrapper.to_dict())).optim
        with quietly():
            self.model = build_recognizer(cfg, name).to(device)
            self.optim_wrapper = build_optim_wrapper(self.model, wrapper)
        for group in self.optim_wrapper.optimizer.param_groups:
            # A network that learns noise by heart has gradients so small that a CPU
            # takes fifty times as long for them.
            group["lr"] = 0.0

    def batch(self, size: int, shape: Sequence[int]) -> dict[str, list]:
        """Make random clips as a data loader hands them on.

        Args:
            size (int): B.
            shape (Sequence[int]): One clip: (3, T, H, W) of a 3D recognizer, or
                (T, 3, H, W) of a 2D one.

        Returns:
            dict[str, list]: ``inputs``, each with a view; ``data_samples``.
        """
        from mmaction.structures import ActionDataSample

        flat = type(self.model).__name__ == "Recognizer2D"
        one = tuple(shape) if flat else (1, *shape)
        clips = [
            torch.randint(0, 255, one, dtype=torch.uint8, device=self.device)
            for _ in range(size)
        ]
        samples = [
            ActionDataSample().set_gt_label(0).to(self.device) for _ in range(size)
        ]
        return dict(inputs=clips, data_samples=samples)

    def step(self, batch: dict[str, list]) -> None:
        """Train one step on a batch, as a Runner does."""
        self.model.train()
        self.model.train_step(batch, self.optim_wrapper)

    def peak_bytes(self, size: int, shape: Sequence[int]) -> int:
        """Measure the most memory that a training step holds at once.

        Args:
            size (int): B.
            shape (Sequence[int]): One clip, as for :meth:`batch`.

        Returns:
            int: Bytes of weights, buffers, the optimizer's state, input, activations
            and gradients that torch allocated, all at the worst moment of the step.
        """
        batch = self.batch(size, shape)
        if not self.optim_wrapper.optimizer.state:
            self.step(self.batch(1, shape))  # makes the state
        extra = peak_extra_memory(partial(self.step, batch), self.device, warm_up=False)
        return self._held(batch) + extra

    def _held(self, batch: dict[str, Any]) -> int:
        """Return the bytes that are there before a step begins."""
        found = [*self.model.parameters(), *self.model.buffers(), *batch["inputs"]]
        for state in self.optim_wrapper.optimizer.state.values():
            found += [value for value in state.values() if isinstance(value, Tensor)]
        return sum(tensor.numel() * tensor.element_size() for tensor in found)

    def seconds_of_step(self, batch: dict[str, list]) -> float:
        """Time a training step.

        Args:
            batch (dict[str, list]): From :meth:`batch`.

        Returns:
            float: Seconds.
        """
        self.model.train()
        return self._seconds(partial(self.model.train_step, batch, self.optim_wrapper))

    def seconds_of_view(self, shape: Sequence[int]) -> float:
        """Time a forward pass of one view, without gradients.

        Args:
            shape (Sequence[int]): One view, as for :meth:`batch`.

        Returns:
            float: Seconds.
        """
        flat = type(self.model).__name__ == "Recognizer2D"
        inputs = torch.zeros(1, *shape, device=self.device)
        inputs = inputs if flat else inputs.unsqueeze(1)
        self.model.eval()
        with torch.no_grad():
            return self._seconds(partial(self.model, inputs, mode="tensor"))

    def _seconds(self, call) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        start = time.perf_counter()
        call()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - start


def bytes_of_step(trainer: Trainer, size: int, shape: Sequence[int]) -> float:
    """Train a step, whether or not it fits into the memory.

    Args:
        trainer (Trainer): What to train.
        size (int): B.
        shape (Sequence[int]): One clip.

    Returns:
        float: What it held, as :meth:`Trainer.peak_bytes`; infinity if there was not
        enough.
    """
    held = math.inf
    with contextlib.suppress(torch.OutOfMemoryError):
        held = float(trainer.peak_bytes(size, shape))
    gc.collect()
    if trainer.device.type == "cuda":
        torch.cuda.empty_cache()
    return held
