"""What a recognizer makes of a sample before it names a class: one vector."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from polynl_mm.user_errors import UserError, did_you_mean


class PooledFeatures:
    """Collects the features of one module while a recognizer computes scores.

    By default they are what the head's classification layer receives: the pooled
    features of each view, or of each segment of a 2D recognizer. Of any other module
    they are its output, averaged over space and time. All views and segments are
    averaged.

    Args:
        model (nn.Module): A recognizer.
        path (str | None): A module of it, such as ``backbone.layer3``.

    Raises:
        UserError: If there is no such module, or the head has no such layer.
    """

    def __init__(self, model: nn.Module, path: str | None = None):
        self._path = path
        self._seen: list[torch.Tensor] = []
        if path is None:
            self._module = _classification_layer(model)
        else:
            modules = dict(model.named_modules())
            if path not in modules or not path:
                raise UserError(
                    f"The model has no module {path!r}{did_you_mean(path, modules)}"
                )
            self._module = modules[path]

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Collect within the block; what was collected before is forgotten."""
        self._seen = []
        if self._path is None:
            hook = self._module.register_forward_pre_hook(self._keep_input)
        else:
            hook = self._module.register_forward_hook(self._keep_output)
        try:
            yield
        finally:
            hook.remove()

    def vector(self) -> torch.Tensor:
        """Return the mean of what was collected.

        Returns:
            torch.Tensor: (C,), float32, on the CPU.

        Raises:
            UserError: If the module did not run, or its output has no channels to tell.
        """
        if not self._seen:
            raise UserError(
                f"The module {self._path} did not run; give another --module."
            )
        return torch.cat(self._seen).mean(0)

    def _keep_input(self, module: nn.Module, inputs: tuple) -> None:
        self._keep(inputs[0].flatten(0, -2))  # (..., C)

    def _keep_output(self, module: nn.Module, inputs: tuple, output) -> None:
        parts = output if isinstance(output, (list, tuple)) else [output]
        self._keep(torch.cat([self._pooled(part) for part in parts], 1))

    def _keep(self, rows: torch.Tensor) -> None:
        self._seen.append(rows.detach().double().cpu().float())

    def _pooled(self, output) -> torch.Tensor:
        dims = output.ndim if isinstance(output, torch.Tensor) else 0
        if dims in (4, 5):  # (B, C, H, W) or (B, C, T, H, W)
            return output.float().flatten(2).mean(2)
        if dims == 3:  # (B, tokens, C)
            return output.float().mean(1)
        if dims == 2:
            return output
        raise UserError(
            f"The output of {self._path} has {dims} dimensions; features have 2 to 5: "
            "(B, C), (B, tokens, C), (B, C, H, W) or (B, C, T, H, W)."
        )


def _classification_layer(model: nn.Module) -> nn.Linear:
    head = getattr(model, "cls_head", None)
    classes = getattr(head, "num_classes", None)
    layers = [] if head is None else list(head.modules())
    linear = [
        layer
        for layer in layers
        if isinstance(layer, nn.Linear) and layer.out_features == classes
    ]
    if not linear:
        raise UserError(
            f"The head {type(head).__name__} has no linear layer that names classes; "
            "give --module, such as --module backbone."
        )
    return linear[-1]
