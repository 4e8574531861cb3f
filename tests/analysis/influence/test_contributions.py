"""Contributions add up to the update, and equal the rows of the dense references."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import polynl_mm
from polynl_mm.analysis.influence import contributions
from polynl_mm.analysis.influence.contributions import update_of
from polynl_mm.ops import reference
from polynl_mm.plugins import Plugin

BN = dict(type="BN")
# id: (registered name without its dimension, arguments)
CASES = {
    "poly_nl": ("PolyNL", {}),
    "poly_nl_reduced": ("PolyNL", dict(reduction=2, bias=True)),
    "poly_nl_heads": ("PolyNL", dict(heads=2, norm_cfg=BN)),
    "gaussian": ("NonLocalBlock", dict(mode="gaussian")),
    "embedded": ("NonLocalBlock", dict(norm_cfg=BN)),
    "dot_product": ("NonLocalBlock", dict(mode="dot_product")),
    "concatenation": ("NonLocalBlock", dict(mode="concatenation")),
    "pyramid": ("PyramidNL", dict(norm_cfg=dict(type="GN", num_groups=2))),
    "apnb": (
        "PyramidNL",
        dict(joint_softmax=True, share_key_query=True, key_query_norm_cfg=BN),
    ),
    "snl": ("SpectralNL", {}),
    "gsnl_stable": ("SpectralNL", dict(order=2, stable=True, num_units=2)),
    "chebyshev_4": ("SpectralNL", dict(order=4, relu=False)),
    "softmax_3": ("SpectralNL", dict(affinity="softmax", order=3, temperature=2.0)),
    "disentangled": (
        "SpectralNL",
        dict(affinity="whitened", use_scale=True, disentangled=True),
    ),
    "stage": ("NonLocalStage", dict(num_units=2, use_scale=True)),
    "double": ("DoubleAttention", dict(norm_cfg=BN)),
    "efficient": ("EfficientAttention", dict(reduction=1, heads=4)),
    "global_context": ("GlobalContext", dict(reduction=1)),
    "global_mean_both": (
        "GlobalContext",
        dict(
            reduction=1,
            pooling_type="avg",
            fusion_types=("channel_mul", "channel_add"),
        ),
    ),
    "cgnl_dot": ("CompactGeneralizedNL", dict(groups=2)),
    "cgnl_rbf": (
        "CompactGeneralizedNL",
        dict(groups=2, kernel="rbf", gamma=0.1, scale=True, norm_cfg=BN),
    ),
    "criss_cross": ("CrissCross", {}),
    "criss_cross_once": ("CrissCross", dict(recurrence=1)),
}
POOLED = {
    "after": dict(sub_sample=True),
    "after_gaussian": dict(sub_sample=True, mode="gaussian"),
    "after_time": dict(sub_sample=True, pool_size=(2, 2, 2), mode="dot_product"),
    "before": dict(sub_sample=True, pool_first=True),
    "before_concat": dict(sub_sample=True, pool_first=True, mode="concatenation"),
    "groups": dict(temporal_groups=2, norm_cfg=dict(type="GN", num_groups=2)),
    "groups_pooled": dict(temporal_groups=2, sub_sample=True),
}
LAYOUTS = [(2, "spacetime"), (3, "spacetime"), (3, "space"), (3, "time")]
POSITIONS = {2: (5, 7), 3: (4, 5, 3)}
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5}


def make(kind, dims, axes="spacetime", channels=8, **arguments):
    """Build a plugin that is not the identity, its norms' statistics included."""
    torch.manual_seed(0)
    for key, value in arguments.items():
        if value == BN:
            arguments[key] = dict(type=f"BN{dims}d")
    plugin = getattr(polynl_mm, f"{kind}{dims}d")(channels, axes=axes, **arguments)
    for name, parameter in plugin.named_parameters():
        if name in ("alpha", "beta", "gamma"):
            nn.init.uniform_(parameter, 0.3, 0.6)
        elif parameter.dim() == 1:
            nn.init.uniform_(parameter, 0.5, 1.5)
        else:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    for buffer in plugin.buffers():
        if buffer.is_floating_point():
            nn.init.uniform_(buffer, 0.2, 0.8)
    return plugin.double().eval()


def relative(found, expected):
    return ((found - expected).abs().max() / expected.abs().max()).item()


def check_sum(plugin, shape, dtype, at):
    x = torch.randn(8, *shape, dtype=torch.float64).add(0.3).to(dtype)
    plugin = plugin.to(dtype)
    found = contributions(plugin, x, at)
    with torch.no_grad():
        update = update_of(plugin, x[None], plugin(x[None]))[0][(slice(None), *at)]
    assert found.terms.shape == x.shape and found.terms.dtype == dtype
    assert relative(found.update, update) < TOLERANCES[dtype]
    assert found.shares.sum().item() == pytest.approx(1, abs=TOLERANCES[dtype] * 10)
    return found


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("dims, axes", LAYOUTS)
@pytest.mark.parametrize("case", CASES)
def test_contributions_add_up_to_the_update(case, dims, axes, dtype):
    kind, arguments = CASES[case]
    at = (3, 2) if dims == 2 else (2, 4, 1)
    found = check_sum(make(kind, dims, axes, **arguments), POSITIONS[dims], dtype, at)
    elsewhere = found.norms.clone()
    if axes == "space":
        elsewhere[2] = 0
    elif axes == "time":
        elsewhere[:, 4, 1] = 0
    else:
        return
    assert elsewhere.max() == 0 and found.norms.max() > 0


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("case", POOLED)
def test_pooled_contributions_add_up_too(case, dtype):
    check_sum(make("NonLocalBlock", 3, **POOLED[case]), (4, 5, 7), dtype, (3, 4, 2))


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


STACKED = {
    "snl": lambda *t: reference.spectral(*t),
    "chebyshev_4": lambda *t: reference.spectral(*t),
    "stable": lambda *t: reference.spectral(*t, stable=True),
    "softmax_3": lambda *t: reference.spectral_softmax(*t),
    "stage": lambda t, p, g, w: w[0] @ reference.non_local_stage(t, p, g, scale=True),
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


class Largest(TorchDispatchMode):
    """Notes the elements of the largest tensor that is made."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                # An expanded view holds what it is a view of.
                self.numel = max(self.numel, leaf.untyped_storage().nbytes() // 4)
        return made


# Order 3 of a softmax takes the square of N in time, as the block itself does.
LINEAR = [case for case in CASES if case != "softmax_3"]


@pytest.mark.parametrize("case", [*LINEAR, *(case for case in POOLED)])
def test_memory_is_linear_in_the_positions(case):
    kind, arguments = CASES.get(case) or ("NonLocalBlock", POOLED[case])
    # Two units, and a GroupNorm, need the block to be run: of this size, for minutes.
    arguments = {**arguments}
    if kind == "NonLocalStage" or "groups" in case:
        arguments.pop("num_units", None)
        arguments.pop("norm_cfg", None)
    plugin = make(kind, 3, **arguments).float()
    shape = (32, 56, 56)  # 100 352 positions
    x = torch.randn(8, *shape)
    with Largest() as largest:
        found = contributions(plugin, x, (16, 28, 28))
    assert found.terms.isfinite().all()
    assert largest.numel < 200 * math.prod(shape)  # criss-cross: T + H + W = 144


@pytest.mark.parametrize("case", ["poly_nl", "dot_product", "snl", "efficient"])
def test_sums_over_many_positions_stay_close(case):
    kind, arguments = CASES[case]
    check_sum(make(kind, 3, **arguments), (32, 56, 56), torch.float32, (31, 0, 55))


def test_rows_of_high_order_hold_some_queries_at_a_time(monkeypatch):
    from polynl_mm.analysis.influence import rows

    monkeypatch.setattr(rows, "_CHUNK", 2**16)
    kind, arguments = CASES["softmax_3"]
    with Largest() as largest:
        contributions(
            make(kind, 3, **arguments).float(), torch.randn(8, 4, 32, 16), (0, 0, 0)
        )
    assert largest.numel <= 2**16 + 2048


def test_gradient_times_contribution_is_a_change_of_the_score():
    plugin = make("NonLocalBlock", 3, mode="dot_product")
    found = contributions(plugin, torch.randn(8, 2, 3, 4).double(), (1, 1, 1))
    gradient = torch.randn(8, dtype=torch.float64)
    torch.testing.assert_close(
        found.toward(gradient).sum(), gradient @ found.total, rtol=1e-10, atol=1e-10
    )


class Unknown(Plugin):
    """A plugin of somebody else."""

    dims = 3


def test_what_cannot_be_explained_is_refused():
    x = torch.zeros(8, 2, 3, 4)
    with pytest.raises(ValueError, match="not known of Unknown; it is of PolyNL, Non"):
        contributions(Unknown(8).eval(), x, (0, 0, 0))
    plugin = polynl_mm.PolyNL3d(8)
    with pytest.raises(ValueError, match="PolyNL3d is in training mode"):
        contributions(plugin, x, (0, 0, 0))
    with pytest.raises(ValueError, match=r"\(2, 0, 0\) is not among .* 2 x 3 x 4"):
        contributions(plugin.eval(), x, (2, 0, 0))
    with pytest.raises(ValueError, match="built with in_channels=8"):
        contributions(plugin, x[:4], (0, 0, 0))
    plugin = polynl_mm.NonLocalBlock3d(8, norm_cfg=dict(type="BN3d"))
    plugin.conv_out.bn = nn.BatchNorm3d(8, track_running_stats=False)
    with pytest.raises(ValueError, match="not with a BatchNorm3d without running"):
        contributions(plugin.eval(), x, (0, 0, 0))
    plugin.theta.conv = nn.Conv3d(8, 4, 3, padding=1)
    with pytest.raises(ValueError, match="convolutions of size 1, not of a Conv3d"):
        contributions(plugin.eval(), x, (0, 0, 0))


def test_identity_has_no_shares():
    plugin = polynl_mm.PolyNL3d(8).eval()
    found = contributions(plugin, torch.randn(8, 2, 3, 4), (0, 0, 0))
    assert found.shares.abs().max() == 0 and found.norms.max() == 0
