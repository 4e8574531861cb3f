"""What a unit of a stacked block sums: Chebyshev rows, and one minus an average."""

from torch import Tensor

from polynl_mm.analysis.influence.linear_parts import apply_weight
from polynl_mm.analysis.influence.query import Query
from polynl_mm.analysis.influence.rows import (
    chebyshev_rows,
    softmax_row,
    symmetric_factors,
    times_softmax,
)
from polynl_mm.ops.spectral import whiten
from polynl_mm.plugins import Plugin
from polynl_mm.plugins.spectral_nl import _SpectralNL


def unit_terms(
    plugin: Plugin, query: Query, unit: int, values: Tensor, features: Tensor
) -> Tensor:
    """Return what each position adds to a unit, before its norm.

    Args:
        plugin (Plugin): A SpectralNL or a NonLocalStage.
        query (Query): The position that is updated.
        unit (int): Which unit.
        values (Tensor): The unit's signal, (K, N).
        features (Tensor): What the unit reads, (1, C, *positions).

    Returns:
        Tensor: (C, N).
    """
    rows = _rows(plugin, query, unit, features)
    projections = zip(plugin.out[unit], rows, strict=True)
    return sum(apply_weight(out, row * values) for out, row in projections)


def _rows(plugin: Plugin, query: Query, unit: int, features: Tensor) -> list[Tensor]:
    """Return the query's row for each output projection of a unit, (N,) each."""
    # The affinity is of the block's input, whatever the unit.
    theta, phi = (
        query.of_group(projection(query.x)) for projection in (plugin.theta, plugin.phi)
    )
    one_hot, here = query.one_hot(), query.index
    if not isinstance(plugin, _SpectralNL):
        average = softmax_row(theta[:, here], phi, scale=plugin.use_scale)
        return [one_hot - average]
    orders = len(plugin.out[unit])
    if plugin.affinity == "symmetric":
        t, p = symmetric_factors(theta, phi)

        def times(row: Tensor) -> Tensor:
            return (row @ t.mT) @ p + (row @ p.mT) @ t

        return chebyshev_rows(one_hot, times, orders, plugin.stable)
    if plugin.affinity == "whitened":
        theta, phi = whiten(theta[None])[0], whiten(phi[None])[0]
    theta = theta / plugin.temperature
    scale = plugin.use_scale
    row = softmax_row(theta[:, here], phi, scale=scale)
    if plugin.mask is not None:
        logits = query.of_group(plugin.mask[unit](features))[0]
        return [row + logits.softmax(dim=0)]

    def times_affinity(given: Tensor) -> Tensor:
        if given is one_hot:
            return row
        return times_softmax(given, theta, phi, scale=scale)

    return chebyshev_rows(one_hot, times_affinity, orders, plugin.stable)
