"""Every option that a published form has, against that form in double precision."""

from functools import partial

import published_blocks as published
import pytest
import torch
from closeness import assert_close, assert_equal_to_reference
from torch import nn

import polynl_mm
from polynl_mm.deployment.formulas import with_formulas
from polynl_mm.plugins import non_local

BN = {2: dict(type="BN"), 3: dict(type="BN3d")}
POSITIONS = {2: (6, 7), 3: (4, 6, 5)}
APNB_GRIDS = {2: ((1, 1), (3, 3), (4, 6)), 3: ((1, 1, 1), (2, 3, 3))}


def non_local_case(mode, pool=None, groups=1, norm=False, **arguments):
    def cases(dims):
        size = pool and pool[-dims:]
        options = dict(mode=mode, temporal_groups=groups, **arguments)
        if pool:
            options.update(sub_sample=True, pool_first=True, pool_size=size)
        if norm:
            options.update(norm_cfg=BN[dims], norm_weight=1.0)
        seen = (1,) * (3 - dims) + (pool or (1, 1, 1))[-dims:]
        form = partial(pyslowfast, mode=mode, pool=seen, groups=groups, norm=norm)
        return options, form

    return "NonLocalBlock", cases


def pyslowfast(weights, x, **options):
    """It has 3d features only: images are clips of one frame."""
    if x.dim() == 5:
        return published.pyslowfast_non_local(weights, x, **options)
    return published.pyslowfast_non_local(weights, x.unsqueeze(2), **options).squeeze(2)


def case(kind, form, arguments=(), **options):
    """A plugin's arguments, and the published form's options."""
    return kind, lambda dims: (dict(arguments), partial(form, **options))


def cgnl_case(arguments, norm, groups=2):
    def cases(dims):
        return arguments(dims), partial(published.cgnl, groups=groups, norm=norm)

    return "CompactGeneralizedNL", cases


def apnb_case(norm):
    def cases(dims):
        arguments = dict(
            grids=APNB_GRIDS[dims], joint_softmax=True, share_key_query=True
        )
        if norm:
            arguments["key_query_norm_cfg"] = BN[dims]
        return arguments, partial(published.apnb, grids=APNB_GRIDS[dims], norm=norm)

    return "PyramidNL", cases


SPECTRAL_2019 = dict(affinity="softmax", order=2, stable=True, num_units=2)
DNL = dict(disentangled=True, num_units=2)
CASES = {
    "pool_in_time": non_local_case("embedded_gaussian", pool=(2, 2, 2)),
    "pool_of_unequal_sizes": non_local_case("dot_product", pool=(1, 3, 2)),
    "norm_weight_1": non_local_case("embedded_gaussian", norm=True),
    "no_bias": non_local_case("embedded_gaussian", bias=False),
    "no_bias_dot_product": non_local_case("dot_product", bias=False),
    "wide": non_local_case("dot_product", inner_channels=11),
    "wide_no_bias_norm": non_local_case(
        "dot_product", inner_channels=3, bias=False, norm=True
    ),
    "gc_avg": case(
        "GlobalContext",
        published.context_block,
        dict(pooling_type="avg", ratio=0.7),
        pooling_type="avg",
        fusion_types=["channel_add"],
    ),
    "gc_mul": case(
        "GlobalContext",
        published.context_block,
        dict(fusion_types=["channel_mul"], ratio=0.5),
        pooling_type="att",
        fusion_types=["channel_mul"],
    ),
    "gc_add_mul": case(
        "GlobalContext",
        published.context_block,
        dict(fusion_types=["channel_add", "channel_mul"], ratio=2),
        pooling_type="att",
        fusion_types=["channel_add", "channel_mul"],
    ),
    "a2_widths": case(
        "DoubleAttention",
        published.efficient_attention,
        dict(key_channels=3, value_channels=5),
        heads=1,
    ),
    "efficient_widths": case(
        "EfficientAttention",
        published.efficient_attention,
        dict(key_channels=4, value_channels=6, heads=2),
        heads=2,
    ),
    "efficient_value_width": case(
        "EfficientAttention",
        published.efficient_attention,
        dict(value_channels=10, heads=2),
        heads=2,
    ),
    "cgnl_norm_groups": cgnl_case(
        lambda dims: dict(groups=2, norm_groups=1, inner_channels=6),
        partial(published.group_norm, groups=1),
    ),
    "cgnl_norm_cfg": cgnl_case(
        lambda dims: dict(groups=2, norm_cfg=BN[dims]), published.batch_norm
    ),
    "gsnl_2019": case(
        "SpectralNL",
        published.gsnl_2019,
        dict(**SPECTRAL_2019, relu=False),
        units=2,
        relu=False,
    ),
    "gsnl_2019_relu": case(
        "SpectralNL", published.gsnl_2019, SPECTRAL_2019, units=2, relu=True
    ),
    "dnl_of_the_snl_authors": case(
        "SpectralNL",
        published.dnl,
        dict(**DNL, affinity="softmax"),
        units=2,
        whiten=False,
        divisor=1.0,
        relu=True,
    ),
    "dnl_whitened": case(
        "SpectralNL",
        published.dnl,
        dict(**DNL, affinity="whitened", use_scale=True, temperature=0.5, relu=False),
        units=2,
        whiten=True,
        divisor=0.5 * 4**0.5,
        relu=False,
    ),
    "apnb": apnb_case(norm=True),
    "apnb_without_norm": apnb_case(norm=False),
    "poly_bias": case("PolyNL", published.poly_nl, dict(bias=True)),
    "poly_full_g": case("PolyNL", published.poly_nl, dict(with_g=True)),
    "poly_bias_reduced": case(
        "PolyNL", published.poly_nl, dict(bias=True, reduction=4)
    ),
    "poly_heads": case(
        "PolyNL", published.poly_sa, dict(with_g=True, heads=2), heads=2
    ),
    "poly_heads_bias": case(
        "PolyNL", published.poly_sa, dict(with_g=True, heads=4, bias=True), heads=4
    ),
    "groups": non_local_case("dot_product", groups=2),
    "groups_pool_norm": non_local_case(
        "embedded_gaussian", pool=(2, 2, 1), groups=2, norm=True
    ),
    "groups_wide": non_local_case("dot_product", groups=4, inner_channels=9),
}


def ways(name, dims):
    """The schedules that a block may take, whatever its size: all are tried."""
    kind, cases = CASES[name]
    arguments, _ = cases(dims)
    if kind == "PolyNL":
        return ["direct", "gram", "direct_few", "gram_few"]
    if arguments.get("mode") == "dot_product" and "sub_sample" not in arguments:
        return ["folded", "projected"]
    return ["only"]


EQUALITIES = [
    pytest.param(name, dims, way, id=f"{name}-{dims}d-{way}")
    for name in CASES
    for dims in ((3,) if name.startswith("groups") else (2, 3))
    for way in ways(name, dims)
]


def make(name, dims, **more):
    kind, cases = CASES[name]
    arguments, form = cases(dims)
    plugin_class = getattr(polynl_mm, f"{kind}{dims}d")
    return plugin_class(8, **{**arguments, **more}), form


def wake(plugin):
    """Give every parameter a value that shows."""
    torch.manual_seed(0)
    for name, parameter in plugin.named_parameters():
        if name in ("alpha", "beta") and type(plugin).__name__.startswith("PolyNL"):
            nn.init.uniform_(parameter, 0.3, 0.6)
        elif name.endswith("alpha"):
            nn.init.ones_(parameter)  # as published
        elif parameter.dim() == 1:
            nn.init.uniform_(parameter, 0.5, 1.5)
        else:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return plugin.double()


@pytest.mark.parametrize("name, dims, way", EQUALITIES)
def test_equals_the_published_form(name, dims, way, monkeypatch):
    """Outputs and all gradients, by each schedule."""
    poly = CASES[name][0] == "PolyNL"
    monkeypatch.setattr(non_local, "is_cheaper", lambda *a: way == "folded")
    more = dict(schedule=way.removesuffix("_few")) if poly else {}
    plugin, form = make(name, dims, **more)
    # Fewer positions than channels: Poly-NL gates features, and folds nothing.
    positions = (1, 2, 3)[-dims:] if way.endswith("_few") else POSITIONS[dims]
    x = torch.randn(2, 8, *positions, dtype=torch.float64)
    weights = dict(wake(plugin).named_parameters())
    # The published forms of the other blocks have no alpha: it stays at 1.
    fixed = {n: weights.pop(n) for n in list(weights) if n.endswith("alpha")}
    if poly:
        weights.update(fixed)

    def run(x, **weights):
        return torch.func.functional_call(plugin, {**fixed, **weights}, (x,))

    def run_published(x, **weights):
        return form(weights, x)

    assert_equal_to_reference(run, run_published, {"x": x, **weights})


@pytest.mark.parametrize("axes", ["space", "time"])
@pytest.mark.parametrize("name", CASES)
def test_axes_limit_what_is_seen(name, axes):
    """A block that looks along one axis is the whole block on each part."""
    arguments, _ = CASES[name][1](3)
    more, whole_more = dict(axes=axes), {}
    if "pool_size" in arguments:
        more["pool_size"] = {"space": (1, 2, 3), "time": (2, 1, 1)}[axes]
        whole_more["pool_size"] = more["pool_size"]
    if "grids" in arguments:
        more["grids"] = {"space": ((1, 1), (2, 3)), "time": ((1,), (2,))}[axes]
        whole_more["grids"] = [
            (1, *grid) if axes == "space" else (*grid, 1, 1) for grid in more["grids"]
        ]
    if "temporal_groups" in arguments and axes == "space":
        more["temporal_groups"] = whole_more["temporal_groups"] = 1
    limited = wake(make(name, 3, **more)[0]).eval()
    whole = make(name, 3, **whole_more)[0].double().eval()
    whole.load_state_dict(limited.state_dict())
    if CASES[name][0] == "CompactGeneralizedNL":
        limited.norm = whole.norm = nn.Identity()  # a GN sees the clip whatever axes
    x = torch.randn(2, 8, 4, 3, 5, dtype=torch.float64)
    if axes == "space":
        expected = torch.cat([whole(frame) for frame in x.split(1, dim=2)], dim=2)
    else:
        rows = [
            torch.cat([whole(pixel) for pixel in row.split(1, dim=4)], dim=4)
            for row in x.split(1, dim=3)
        ]
        expected = torch.cat(rows, dim=3)
    assert_close(limited(x), expected, axes)


@pytest.mark.parametrize("name", CASES)
def test_starts_as_the_identity_and_learns(name):
    plugin, _ = make(name, 3)
    x = torch.randn(2, 8, 4, 6, 5)
    assert torch.equal(plugin(x), x)
    plugin(x).square().mean().backward()
    assert any(p.grad is not None and p.grad.any() for p in plugin.parameters())
    assert not torch.equal(make(name, 3, zero_init=False)[0](x), x)
    for parameter in wake(plugin).parameters():
        parameter.grad = None
    plugin(x.double()).square().mean().backward()
    unused = [n for n, p in plugin.named_parameters() if p.grad is None]
    assert not unused


@pytest.mark.parametrize("zero_init", [True, False])
def test_norm_weight_is_where_it_starts(zero_init):
    block = make("norm_weight_1", 3, zero_init=zero_init)[0]
    assert (block.conv_out.bn.weight == 1).all()
    assert bool(block.conv_out.conv.weight.any()) is not zero_init


@pytest.mark.parametrize("name", CASES)
def test_formula_for_export_equals_the_schedule(name):
    plugin = wake(make(name, 3)[0]).eval()
    x = torch.randn(2, 8, 4, 6, 5, dtype=torch.float64)
    assert_close(with_formulas(nn.Sequential(plugin))(x), plugin(x), "formula")


@pytest.mark.parametrize(
    "name", ["gc_add_mul", "gsnl_2019", "dnl_whitened", "apnb", "groups_pool_norm"]
)
def test_formula_is_a_graph(name):
    formula = with_formulas(nn.Sequential(wake(make(name, 3)[0]).eval()))
    x = torch.randn(2, 8, 4, 6, 5, dtype=torch.float64)
    with torch.no_grad():
        exported = torch.export.export(formula, (x,)).module()
        assert_close(exported(x), formula(x), "graph")


@pytest.mark.parametrize(
    "kind, arguments, message",
    [
        ("NonLocalBlock3d", dict(pool_size=2), "pool_size=2 says how sub_sample=True"),
        (
            "NonLocalBlock3d",
            dict(sub_sample=True, pool_size=(2, 2)),
            r"one for each of \(T, H, W\), not \(2, 2\)",
        ),
        (
            "NonLocalBlock3d",
            dict(sub_sample=True, pool_size=(2, 0, 2)),
            "each of pool_size is a whole number from 1",
        ),
        (
            "NonLocalBlock3d",
            dict(sub_sample=True, pool_size=(2, 2, 2), axes="space"),
            r"pools over time, which axes='space'.*set pool_size=\(1, 2, 2\)",
        ),
        ("NonLocalBlock3d", dict(temporal_groups=0), "temporal_groups is a whole"),
        (
            "NonLocalBlock3d",
            dict(temporal_groups=2, axes="space"),
            "set temporal_groups=1",
        ),
        ("NonLocalBlock2d", dict(temporal_groups=2), "use NonLocalBlock3d"),
        ("NonLocalBlock3d", dict(inner_channels=0), "inner_channels is a whole number"),
        ("NonLocalBlock3d", dict(norm_weight=1.0), "not 1.0 with norm_cfg=None"),
        (
            "GlobalContext3d",
            dict(pooling_type="max"),
            r"pooling_type is one of \('att'",
        ),
        ("GlobalContext3d", dict(fusion_types="channel_mul"), "fusion_types is a list"),
        ("GlobalContext3d", dict(fusion_types=[]), "fusion_types is a list of one"),
        ("GlobalContext3d", dict(ratio=0.1), "at least one of in_channels=8 channels"),
        (
            "GlobalContext3d",
            dict(fusion_types=["channel_mul"], norm_cfg=BN[3]),
            "set norm_cfg=None",
        ),
        ("DoubleAttention3d", dict(value_channels=0), "value_channels is a whole"),
        ("DoubleAttention3d", dict(key_channels=2.5), "key_channels is a whole"),
        (
            "EfficientAttention3d",
            dict(heads=2, value_channels=5),
            "heads=2 does not divide the 5 inner",
        ),
        (
            "CompactGeneralizedNL3d",
            dict(groups=2, norm_groups=2, norm_cfg=BN[3]),
            "give it there as num_groups",
        ),
        (
            "CompactGeneralizedNL3d",
            dict(groups=2, norm_groups=3),
            "norm_groups=3 does not divide in_channels=8",
        ),
        (
            "CompactGeneralizedNL3d",
            dict(groups=2, inner_channels=5),
            "the inner 5 channels",
        ),
        ("SpectralNL3d", dict(affinity="dot"), "affinity is one of .*'whitened'"),
        ("SpectralNL3d", dict(use_scale=True), "use_scale belongs to a softmax"),
        ("SpectralNL3d", dict(temperature=0), "temperature is a number above 0"),
        (
            "SpectralNL3d",
            dict(disentangled=True, affinity="softmax", order=2),
            "disentangled=True has one term",
        ),
        (
            "PyramidNL3d",
            dict(key_query_norm_cfg=BN[3]),
            "set share_key_query=True, too",
        ),
        ("PolyNL3d", dict(with_g=False, reduction=2), "set reduction=1"),
        ("PolyNL3d", dict(heads=3), "heads=3 does not divide the 8 inner"),
        ("PolyNL3d", dict(heads=8), "equal parts of two or more"),
    ],
)
def test_what_cannot_combine_is_named(kind, arguments, message):
    with pytest.raises(ValueError, match=f"{kind}: .*{message}"):
        getattr(polynl_mm, kind)(8, **arguments)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(temporal_groups=3), "temporal_groups=3 does not divide the 4 frames"),
        (dict(sub_sample=True, pool_size=(5, 1, 1)), r"the \(4, 3, 3\) positions"),
        (
            dict(sub_sample=True, pool_size=(3, 1, 1), temporal_groups=2),
            r"the \(2, 3, 3\) positions",
        ),
    ],
)
def test_features_that_do_not_fit_are_named(arguments, message):
    block = polynl_mm.NonLocalBlock3d(8, **arguments)
    with pytest.raises(ValueError, match=message):
        block(torch.zeros(1, 8, 4, 3, 3))
