"""Plugins of every kind whose contributions are tested, away from the identity."""

import pytest
import torch
from every_plugin import wake
from torch import nn

from polynl_mm import plugins
from polynl_mm.analysis.influence import contributions
from polynl_mm.analysis.influence.contributions import update_of

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
    "pointwise": ("Pointwise", dict(norm_cfg=BN)),
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
    if kind != "Pointwise":  # which looks along no axes
        arguments["axes"] = axes
    plugin = getattr(plugins, f"{kind}{dims}d")(channels, **arguments)
    wake(plugin)
    for buffer in plugin.buffers():
        if buffer.is_floating_point():
            nn.init.uniform_(buffer, 0.2, 0.8)
    return plugin.double().eval()


def relative(found, expected):
    return ((found - expected).abs().max() / expected.abs().max()).item()


def check_sum(plugin, shape, dtype, at):
    x = torch.randn(8, *shape, dtype=torch.float64).add(0.3).to(dtype)
    plugin = plugin.to(dtype)
    with torch.device("meta"):  # nothing is made elsewhere than the features are
        found = contributions(plugin, x, at)
    with torch.no_grad():
        update = update_of(plugin, x[None], plugin(x[None]))[0][(slice(None), *at)]
    assert found.terms.shape == x.shape and found.terms.dtype == dtype
    assert relative(found.update, update) < TOLERANCES[dtype]
    assert found.shares.sum().item() == pytest.approx(1, abs=TOLERANCES[dtype] * 10)
    return found
