"""The values that a non-local block's query sums: each mode, and what is pooled."""

import torch
from torch import Tensor, nn

from polynl_mm.analysis.influence.linear_parts import apply_weight, bias_of, project
from polynl_mm.analysis.influence.query import Query
from polynl_mm.analysis.influence.rows import max_pool, softmax_row, spread_over_cells
from polynl_mm.plugins import Plugin


def value_terms(plugin: Plugin, query: Query) -> Tensor:
    """Return what each position adds to the average of the values, (K, N).

    Where the block max-pools, a channel's maximum is the contribution of the position
    that it is of. A bias of what is pooled before its projection has no position: the
    positions of a cell share it equally.

    Args:
        plugin (Plugin): A NonLocalBlock.
        query (Query): The position that is updated.

    Returns:
        Tensor: The affinity of each position times its value, (K, N).
    """
    x, size = query.features, _pool_of_group(plugin)
    seen = max_pool(x, query.shape, size)[0] if plugin.pool_first else x
    row = _row(plugin, query, seen, size)
    g = _conv(plugin.g)
    if size is None:
        return row * project(g, x)
    if plugin.pool_first:
        maxima, places = max_pool(x, query.shape, size)
        spread = torch.zeros_like(x).scatter_add_(1, places, row * maxima)
        share = spread_over_cells(row, query.shape, size)
        return apply_weight(g, spread) + share * bias_of(g, x).unsqueeze(1)
    values = project(g, x)
    maxima, places = max_pool(values, query.shape, size)
    return torch.zeros_like(values).scatter_add_(1, places, row * maxima)


def _row(
    plugin: Plugin, query: Query, seen: Tensor, size: tuple[int, ...] | None
) -> Tensor:
    """Return the query's affinity to each key, (M,)."""
    here = query.features[:, [query.index]]
    pools_after = size is not None and not plugin.pool_first
    if plugin.mode == "gaussian":
        theta, keys = here[:, 0], seen
    else:
        theta = project(_conv(plugin.theta), here)[:, 0]
        keys = project(_conv(plugin.phi), seen)
    if pools_after:
        keys = max_pool(keys, query.shape, size)[0]
    if plugin.mode == "dot_product":
        return theta @ keys / keys.shape[1]
    if plugin.mode == "concatenation":
        of_query, of_keys = plugin.concat_project.conv.weight.flatten().chunk(2)
        return (of_query @ theta + of_keys @ keys).relu() / keys.shape[1]
    scale = plugin.mode == "embedded_gaussian" and plugin.use_scale
    return softmax_row(theta, keys, scale=scale)


def _pool_of_group(plugin: Plugin) -> tuple[int, ...] | None:
    """Return by how much each axis of a group is pooled."""
    size = plugin.pool_size
    if size is None:
        return None
    return {"spacetime": size, "space": size[-2:], "time": size[:-2]}[plugin.axes]


def _conv(projection: nn.Sequential) -> nn.Module:
    """Return the convolution of a projection, which a pooling may follow."""
    return projection.conv if hasattr(projection, "conv") else projection[0].conv
