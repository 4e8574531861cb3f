"""MMEngine's FLOP counter, and with it MMAction2's, sees the products of every plugin.

Mends: the counter of MMEngine 0.10.7 passes over products that are added to something
(``baddbmm``) and over attention, and counts a product of a matrix and a batch once.
"""

import math
from typing import Any


def count_all_products() -> None:
    """Give MMEngine's counter what it lacks; safe to call again."""
    from mmengine.analysis import complexity_analysis

    complexity_analysis._DEFAULT_SUPPORTED_FLOP_OPS.update(
        {
            "aten::matmul": _count_product,
            "aten::baddbmm": _count_added_product,
            "aten::baddbmm_": _count_added_product,
            "aten::addmm_": _count_added_product,
            "aten::scaled_dot_product_attention": _count_attention,
        }
    )


def _count_product(inputs: list[Any], outputs: list[Any]) -> int:
    """Count a product of vectors, matrices or batches of them, broadcast or not."""
    left, result = *_shapes(inputs[:1]), *_shapes(outputs[:1])
    return math.prod(result) * (left[-1] if left else 1)


def _count_added_product(inputs: list[Any], outputs: list[Any]) -> int:
    return _count_product(inputs[1:3], outputs)


def _count_attention(inputs: list[Any], outputs: list[Any]) -> int:
    query, key, value = _shapes(inputs[:3])
    pairs = math.prod(query[:-1]) * key[-2]
    return pairs * (query[-1] + value[-1])


def _shapes(values: list[Any]) -> list[list[int]]:
    from mmengine.analysis.jit_handles import get_shape

    return [get_shape(value) for value in values]
