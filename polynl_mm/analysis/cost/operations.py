"""Counting a model's parameters and operations."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count


def _count_attention(query, key, value, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _count_product(total, left, right, *_: Any, **__: Any) -> int:
    return 2 * math.prod(left) * right[-1]


# torch's counter knows the fused attention of GPUs, and not that of CPUs; products
# added to a new tensor, and not those added in place.
_ALSO_COUNTED = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _count_attention,
    torch.ops.aten.addmm_: _count_product,
    torch.ops.aten.baddbmm_: _count_product,
}


@dataclass(frozen=True)
class Cost:
    """What a model costs.

    Attributes:
        gflops (float): 10^9 multiplications with their additions, which is what the
            field, MMAction2 included, calls FLOPs.
        parameters (int): Trained or not.
    """

    gflops: float
    parameters: int


def count_cost(model: nn.Module, function: Callable[[], Any]) -> Cost:
    """Count what a call of a model costs.

    ``torch.utils.flop_counter`` counts every product of matrices and every convolution,
    those inside ``scaled_dot_product_attention`` included; element-wise operations,
    sorting and sums are not counted.

    Args:
        model (nn.Module): The model, for its parameters.
        function (Callable): Calls it; run once, without gradients.

    Returns:
        Cost: Operations of the call and parameters of the model.
    """
    counter = FlopCounterMode(display=False, custom_mapping=_ALSO_COUNTED)
    with torch.no_grad(), counter:
        function()
    return Cost(
        # The counter takes a multiplication and its addition for two.
        gflops=counter.get_total_flops() / 2e9,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
    )


def count_recognizer_cost(recognizer: nn.Module, shape: Sequence[int]) -> Cost:
    """Count what a recognizer spends on one view.

    Args:
        recognizer (nn.Module): A recognizer of MMAction2: backbone, neck and head.
        shape (Sequence[int]): Input of one view: (3, T, H, W) for a 3D recognizer,
            (T, 3, H, W) for a 2D one.

    Returns:
        Cost: Operations of one view and parameters of the model.

    Raises:
        ValueError: If the shape has not four sizes, or the channels at a wrong place.
    """
    flat = type(recognizer).__name__ == "Recognizer2D"
    place, layout = (1, "T 3 H W") if flat else (0, "3 T H W")
    if len(shape) != 4 or shape[place] != 3 or min(shape) < 1:
        raise ValueError(
            f"--shape of a {type(recognizer).__name__} is {layout}, such as "
            f"{'8 3 224 224' if flat else '3 8 224 224'}, not "
            f"{' '.join(map(str, shape))}."
        )
    device = next(recognizer.parameters()).device
    inputs = torch.zeros(1, *shape, device=device)
    recognizer.eval()
    return count_cost(
        recognizer,
        # A view is a clip: (batch, views, ...) for both kinds of recognizer.
        lambda: recognizer(inputs if flat else inputs.unsqueeze(1), mode="tensor"),
    )
