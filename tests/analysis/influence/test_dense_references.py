"""Contributions equal the rows of the dense references, given one value at a time."""

import math

import pytest
import torch
from explained_plugins import BN, CASES, POOLED, POSITIONS, make, relative
from torch import nn
from torch.nn import functional

from polynl_mm.analysis.influence import contributions
from polynl_mm.ops import reference


def one_hot_values(values):
    """Return one sample for each position, whose values are zero at all others."""
    positions = values.shape[1]
    return values * torch.eye(positions, dtype=values.dtype).unsqueeze(1)


def after_sum(plugin, sums):
    """Apply what is linear after the sum, as the plugin's own modules do: (N, V)."""
    tail = getattr(plugin, "conv_out", None) or nn.Sequential(
        plugin.out, plugin.norm or nn.Identity()
    )
    grid = sums.reshape(*sums.shape, *(1,) * plugin.dims)
    return (tail(grid) - tail(torch.zeros_like(grid))).flatten(1).mT  # (C, N)


def check_against_reference(case, dims, run_reference):
    """Compare with a dense reference, which is given one position's value at a time."""
    kind, arguments = CASES[case]
    plugin = make(kind, dims, **arguments)
    if kind == "CompactGeneralizedNL":
        plugin.norm = nn.Identity()  # a GroupNorm is no linear map
    x = torch.randn(8, *POSITIONS[dims], dtype=torch.float64)
    at = tuple(size - 2 for size in POSITIONS[dims])
    flat = torch.arange(x[0].numel()).view(x.shape[1:])[at].item()

    def projected(name):
        layer = getattr(plugin, name, None)
        if layer is None:
            return x.flatten(1)
        if isinstance(layer, nn.Conv1d):
            return layer(x.flatten(1)[None])[0]
        return layer(x[None])[0].flatten(1)

    with torch.no_grad():
        theta, phi, g = (projected(name) for name in ("theta", "phi", "g"))
        values = one_hot_values(g)
        sums = run_reference(
            plugin,
            theta.expand(len(values), -1, -1),
            phi.expand(len(values), -1, -1),
            values,
        )[:, :, flat]  # (N, V)
        expected = after_sum(plugin, sums)
    found = contributions(plugin, x, at).terms.flatten(1)
    assert relative(found, expected) < 1e-10


REFERENCES = {
    "gaussian": lambda p, *t: reference.gaussian(*t),
    "embedded": lambda p, *t: reference.gaussian(*t, scale=True),
    "dot_product": lambda p, *t: reference.dot_product(*t),
    "concatenation": lambda p, *t: reference.concatenation(
        *t, p.concat_project.conv.weight.flatten()
    ),
    "double": lambda p, *t: reference.double_attention(*t),
    "efficient": lambda p, *t: reference.efficient_attention(*t, heads=4),
    "cgnl_dot": lambda p, *t: reference.compact_generalized_dot(*t, groups=2),
    "cgnl_rbf": lambda p, *t: reference.compact_generalized_rbf(
        *t, groups=2, gamma=0.1, scale=True
    ),
}


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("case", REFERENCES)
def test_equals_rows_of_the_dense_reference(case, dims):
    check_against_reference(case, dims, REFERENCES[case])


def test_pyramid_equals_dense_reference(monkeypatch):
    monkeypatch.setitem(CASES, "pyramid", ("PyramidNL", dict(norm_cfg=BN)))

    def run(plugin, *samples):
        shape = POSITIONS[3]
        return reference.pyramid_non_local(*samples, shape, plugin.grids, scale=True)

    check_against_reference("pyramid", 3, run)


def run_disentangled(plugin, x, theta, phi, g, weight):
    logits = plugin.mask[0](x[None]).flatten(2).expand(len(g), -1, -1)
    theta, phi = (t - t.mean(dim=2, keepdim=True) for t in (theta, phi))
    return weight[0] @ reference.disentangled(theta, phi, g, logits, scale=True)


STACKED = {
    "snl": lambda p, x, *t: reference.spectral(*t),
    "chebyshev_4": lambda p, x, *t: reference.spectral(*t),
    "stable": lambda p, x, *t: reference.spectral(*t, stable=True),
    "softmax_3": lambda p, x, *t: reference.spectral_softmax(*t),
    "disentangled": run_disentangled,
    "stage": lambda p, x, theta, phi, g, weight: (
        weight[0] @ reference.non_local_stage(theta, phi, g, scale=True)
    ),
}


@pytest.mark.parametrize("case", STACKED)
def test_stacked_blocks_equal_dense_references(case):
    kind, arguments = {
        "stable": ("SpectralNL", dict(order=3, stable=True)),
        "softmax_3": ("SpectralNL", dict(affinity="softmax", order=3)),
        "stage": ("NonLocalStage", dict(use_scale=True)),
    }.get(case, CASES.get(case))
    plugin = make(kind, 3, **arguments)
    x = torch.randn(8, *POSITIONS[3], dtype=torch.float64)
    at, flat = (1, 2, 2), 15 + 6 + 2
    with torch.no_grad():
        theta, phi, g = (
            layer(x[None])[0].flatten(1)
            for layer in (plugin.theta, plugin.phi, plugin.g[0])
        )
        weight = torch.stack([out.weight.flatten(1) for out in plugin.out[0]])
        count = g.shape[1]
        sums = STACKED[case](
            plugin,
            x,
            theta.expand(count, -1, -1),
            phi.expand(count, -1, -1),
            one_hot_values(g),
            weight,
        )[:, :, flat]  # (N, C)
        update = (plugin(x[None])[0] - x)[(slice(None), *at)]
        norm = plugin.norm[0]
        grid = sums[..., None, None, None]
        expected = (norm(grid) - norm(torch.zeros_like(grid))).flatten(1).mT
        # What the rectifier passes is where the update is not zero.
        expected = plugin.alpha * (update != 0)[:, None] * expected
    assert (update != 0).sum() > 0
    found = contributions(plugin, x, at).terms.flatten(1)
    assert relative(found, expected) < 1e-10


def test_poly_nl_equals_the_third_order_polynomial():
    plugin = make("PolyNL", 3, reduction=2)
    x = torch.randn(8, *POSITIONS[3], dtype=torch.float64)
    flat, at = x.flatten(1), (3, 1, 0)
    with torch.no_grad():
        out, theta, phi, g = (
            getattr(plugin, name).weight.flatten(1)
            for name in ("out", "theta", "phi", "g")
        )
        coefficients = torch.einsum("ck,ka,kb,kd->cabd", out, theta, phi, g)
        here = x[(slice(None), *at)]
        expected = torch.einsum("cabd,aj,bj,d->cj", coefficients, flat, flat, here)
        expected = plugin.alpha * expected / flat.shape[1]
    found = contributions(plugin, x, at).terms.flatten(1)
    assert relative(found, expected) < 1e-10


def test_criss_cross_is_the_composed_row():
    plugin = make("CrissCross", 3)
    shape, at, flat = POSITIONS[3], (2, 0, 1), 2 * 15 + 1
    x = torch.randn(8, *shape, dtype=torch.float64)
    count, width = x[0].numel(), 9
    with torch.no_grad():
        # In homogeneous coordinates the bias is a column of the matrix.
        value = torch.zeros(width, width, dtype=x.dtype)
        value[:8, :8] = plugin.g.weight.flatten(1)
        value[:8, 8] = plugin.g.bias
        whole, features = torch.eye(count * width, dtype=x.dtype), x[None]
        for _ in range(plugin.recurrence):
            theta, phi, g = (
                layer(features).flatten(2)
                for layer in (plugin.theta, plugin.phi, plugin.g)
            )
            eye = torch.eye(count, dtype=x.dtype)[None]
            affinity = reference.criss_cross(theta, phi, eye, shape)[0].mT.contiguous()
            step = torch.kron(affinity, value) * plugin.gamma
            whole = (torch.eye(len(whole), dtype=x.dtype) + step) @ whole
            y = reference.criss_cross(theta, phi, g, shape).unflatten(2, shape)
            features = features + plugin.gamma * y
        whole = whole - torch.eye(len(whole), dtype=x.dtype)
        row = whole.view(count, width, count, width)[flat, :8]  # (C, N, C + 1)
        extended = torch.cat([x.flatten(1), torch.ones(1, count, dtype=x.dtype)])
        expected = torch.einsum("cjd,dj->cj", row, extended)
    found = contributions(plugin, x, at).terms.flatten(1)
    assert relative(found, expected) < 1e-10


def test_global_context_weighs_positions_as_its_reference():
    plugin = make("GlobalContext", 3, reduction=1)
    x = torch.randn(8, *POSITIONS[3], dtype=torch.float64)
    with torch.no_grad():
        logits = plugin.phi(x[None]).flatten(2)[0]
        values = one_hot_values(plugin.g(x[None])[0].flatten(1))
        pooled = reference.global_context(logits.expand(len(values), -1, -1), values)
    found = contributions(plugin, x, (0, 0, 0)).terms.flatten(1)  # (C, N)
    pooled = pooled[:, :, 0]  # (N, K)
    # After the pooling, one linear map is the same for all positions.
    linear = torch.linalg.lstsq(pooled, found.mT).solution
    assert relative(pooled @ linear, found.mT) < 1e-10


@pytest.mark.parametrize("case", ["after", "after_time", "before", "before_concat"])
def test_cells_of_a_pooling_get_what_their_key_gets(case):
    plugin = make("NonLocalBlock", 3, **POOLED[case])
    x = torch.randn(8, 4, 4, 6, dtype=torch.float64)
    at, flat = (1, 3, 2), 24 + 18 + 2
    with torch.no_grad():
        seen = plugin.pool(x[None]) if plugin.pool_first else x[None]
        theta, phi, g = plugin.theta(x[None]), plugin.phi(seen), plugin.g(seen)
        cells = g.shape[2:]
        theta, phi, g = (t[0].flatten(1) for t in (theta, phi, g))
        values = one_hot_values(g)
        samples = (theta.expand(len(g[0]), -1, -1), phi.expand(len(g[0]), -1, -1))
        if plugin.mode == "concatenation":
            weight = plugin.concat_project.conv.weight.flatten()
            sums = reference.concatenation(*samples, values, weight)
        elif plugin.mode == "dot_product":
            sums = reference.dot_product(*samples, values)
        else:
            sums = reference.gaussian(*samples, values, scale=True)
        expected = after_sum(plugin, sums[:, :, flat])
    found = contributions(plugin, x, at).terms
    pool = [a // b for a, b in zip(x.shape[1:], cells, strict=True)]
    by_cell = functional.avg_pool3d(found[None], pool)[0] * math.prod(pool)
    assert relative(by_cell.flatten(1), expected) < 1e-10
