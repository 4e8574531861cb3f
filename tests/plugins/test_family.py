"""Every plugin against its reference, and what all of them promise."""

import inspect

import numpy as np
import pytest
import torch
from closeness import assert_close, assert_equal_to_reference
from every_plugin import ALL_KINDS, make, wake
from mmcv.cnn import build_plugin_layer, fuse_conv_bn
from torch import nn

import polynl_mm
from polynl_mm.ops import reference
from polynl_mm.plugins import (
    compact_generalized_nl,
    criss_cross,
    double_attention,
    efficient_attention,
    global_context,
    non_local_stage,
    pyramid_nl,
    spectral_nl,
)


def pyramid_reference(theta, phi, g, *, scale):
    """Attend to regions already pooled; pooling itself is held to by its own tests."""
    levels = zip(phi, g, strict=True)
    return sum(reference.gaussian(theta, k, v, scale=scale) for k, v in levels) / len(g)


def of_nobody(function):
    """Let a reference be called as what may ask others for their positions."""

    def alone(*tensors, others=None, **options):
        assert others is None
        return function(*tensors, **options)

    return alone


# id: (registered name without its dimension, arguments, module, {function: reference})
CASES = {
    "double_attention": ("DoubleAttention", {}, double_attention, ["double_attention"]),
    "efficient_attention": (
        "EfficientAttention",
        dict(reduction=1, heads=4),
        efficient_attention,
        ["efficient_attention"],
    ),
    # Without a bottleneck: a LayerNorm over two channels only knows signs.
    "global_context": (
        "GlobalContext",
        dict(reduction=1),
        global_context,
        ["global_context"],
    ),
    "cgnl_dot": (
        "CompactGeneralizedNL",
        dict(groups=2),
        compact_generalized_nl,
        ["compact_generalized_dot"],
    ),
    "cgnl_rbf": (
        "CompactGeneralizedNL",
        dict(groups=2, kernel="rbf", gamma=0.1, scale=True),
        compact_generalized_nl,
        ["compact_generalized_rbf"],
    ),
    "criss_cross": ("CrissCross", dict(recurrence=2), criss_cross, ["criss_cross"]),
    "pyramid": ("PyramidNL", {}, pyramid_nl, ["pyramid_non_local"]),
    "snl": ("SpectralNL", {}, spectral_nl, ["spectral"]),
    "gsnl_stable": (
        "SpectralNL",
        dict(order=2, stable=True, num_units=2),
        spectral_nl,
        ["spectral"],
    ),
    "chebyshev_4": ("SpectralNL", dict(order=4), spectral_nl, ["spectral"]),
    "chebyshev_softmax": (
        "SpectralNL",
        dict(affinity="softmax", order=3),
        spectral_nl,
        ["spectral_softmax"],
    ),
    "disentangled": (
        "SpectralNL",
        dict(affinity="whitened", use_scale=True, disentangled=True),
        spectral_nl,
        ["disentangled"],
    ),
    "non_local_stage": (
        "NonLocalStage",
        dict(num_units=2),
        non_local_stage,
        ["non_local_stage"],
    ),
}
NO_CONV_BEFORE_NORM = ("CrissCross", "NonLocalStage", "SpectralNL")
MODES = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")
POSITIONS = {2: [(7, 5), (1, 1)], 3: [(3, 5, 4), (1, 1, 1)]}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("one", [False, True], ids=["odd", "N1"])
@pytest.mark.parametrize(
    "dims, axes",
    [
        (2, "spacetime"),
        (2, "space"),
        (3, "spacetime"),
        (3, "space"),
        (3, "time"),
    ],
)
@pytest.mark.parametrize("case", CASES)
def test_equals_reference(case, dims, axes, one, batch, dtype, monkeypatch):
    kind, arguments, module, functions = CASES[case]
    plugin = wake(make(kind, dims, in_channels=8, axes=axes, **arguments)).to(dtype)
    # Statistics of single numbers: a norm in training mode would divide by nothing.
    plugin.eval()
    if kind == "CompactGeneralizedNL":
        # Its group norm undoes the scale that the block is about, up to rounding.
        plugin.norm = nn.Identity()
    x = torch.randn(batch, 8, *POSITIONS[dims][one], dtype=dtype)
    parameters = dict(plugin.named_parameters())

    def run(x, **parameters):
        return torch.func.functional_call(plugin, parameters, (x,))

    def run_reference(x, **parameters):
        with monkeypatch.context() as patch:
            for name in functions:
                slow = (
                    pyramid_reference
                    if name == "pyramid_non_local"
                    else getattr(reference, name)
                )
                patch.setattr(module, name, of_nobody(slow))
            return run(x, **parameters)

    assert_equal_to_reference(run, run_reference, {"x": x, **parameters})


@pytest.mark.parametrize("case", [*CASES, "poly_nl"])
@pytest.mark.parametrize("axes", ["space", "time"])
def test_axes_limit_what_is_seen(case, axes):
    kind, arguments = CASES[case][:2] if case in CASES else ("PolyNL", {})
    limited, whole = dict(arguments), dict(arguments)
    if kind == "PyramidNL":
        limited["grids"] = {"space": ((1, 1), (2, 3)), "time": ((1,), (2,))}[axes]
        whole["grids"] = {
            "space": ((1, 1, 1), (1, 2, 3)),
            "time": ((1, 1, 1), (2, 1, 1)),
        }[axes]
    limited = wake(make(kind, 3, in_channels=8, axes=axes, **limited)).double().eval()
    whole = make(kind, 3, in_channels=8, **whole).double().eval()
    whole.load_state_dict(limited.state_dict())
    if kind == "CompactGeneralizedNL":
        # Its group norm sees the whole clip whatever the axes: not part of the test.
        limited.norm, whole.norm = nn.Identity(), nn.Identity()
    x = torch.randn(2, 8, 3, 4, 5, dtype=torch.float64)
    if axes == "space":
        parts = [whole(frame) for frame in x.split(1, dim=2)]
        expected = torch.cat(parts, dim=2)
    else:
        columns = [column.split(1, dim=4) for column in x.split(1, dim=3)]
        rows = [torch.cat([whole(p) for p in row], dim=4) for row in columns]
        expected = torch.cat(rows, dim=3)
    assert_close(limited(x), expected, axes)


@pytest.mark.parametrize("case", [*CASES, "poly_nl", *MODES, "heads"])
@pytest.mark.parametrize("axes", ["spacetime", "space", "time"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_empty_batch_goes_through_as_through_a_convolution(case, axes, dtype):
    kind, arguments = "PolyNL", dict(heads=2) if case == "heads" else {}
    if case in CASES:
        kind, arguments = CASES[case][:2]
    elif case in MODES:
        kind, arguments = "NonLocalBlock", dict(mode=case, norm_cfg=dict(type="BN3d"))
    plugin = make(kind, 3, in_channels=8, axes=axes, **arguments).to(dtype)
    # Other widths, so that few and many keys, gram and direct, are all taken.
    for positions in ((2, 3, 3), (6, 6, 6)):
        x = torch.zeros(0, 8, *positions, dtype=dtype, requires_grad=True)
        y = plugin(x)
        assert y.shape == x.shape
        y.sum().backward()
        assert x.grad.shape == x.shape
        assert not any(p.grad.any() for p in plugin.parameters() if p.grad is not None)
        with torch.no_grad():
            assert plugin.eval()(x).shape == x.shape
        plugin.train()


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_identity_at_the_start_and_trainable(kind, dims):
    plugin = make(kind, dims, in_channels=16)
    x = torch.randn(2, 16, *[4] * dims)
    assert torch.equal(plugin(x), x)
    # The identity must not be a trap: some weight has a gradient there.
    plugin(x).square().mean().backward()
    gradients = [p.grad for p in plugin.parameters() if p.grad is not None]
    assert any(g.abs().max() > 0 for g in gradients)
    assert not torch.equal(make(kind, dims, in_channels=16, zero_init=False)(x), x)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_every_weight_learns(kind):
    plugin = wake(make(kind, 3, in_channels=16))
    plugin(torch.randn(2, 16, 3, 4, 5)).square().mean().backward()
    for name, parameter in plugin.named_parameters():
        assert parameter.grad is not None, name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_autocast_stays_finite_and_keeps_the_type(kind, dtype):
    plugin = wake(make(kind, 3, in_channels=16))
    x = torch.randn(1, 16, 4, 20, 20).mul(30).requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        y = plugin(x)
    assert y.dtype == x.dtype
    y.mean().backward()
    assert y.isfinite().all() and x.grad.isfinite().all()


@pytest.mark.parametrize("magnitude", [1, 30, 300])
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_half_weights_stay_finite(kind, magnitude):
    if kind == "PolyNL" and magnitude > 30:
        pytest.skip("the cube of the features is no float16")
    plugin = wake(make(kind, 3, in_channels=16)).half()
    x = torch.randn(1, 16, 4, 20, 20).mul(magnitude).half().requires_grad_()
    y = plugin(x)
    y.mean().backward()
    assert y.dtype == x.dtype and y.isfinite().all() and x.grad.isfinite().all()
    if kind not in ("CompactGeneralizedNL", "PolyNL", "SpectralNL"):
        return  # large logits in half precision choose other positions
    exact = plugin.float()(x.detach().float())
    assert (y - exact).abs().max() <= 0.02 * exact.abs().max()


def test_half_weights_still_count_statistics():
    norm = dict(type="BN3d")
    plugin = make("CompactGeneralizedNL", 3, in_channels=16, norm_cfg=norm).half()
    plugin(torch.randn(2, 16, 3, 4, 5).half())
    assert plugin.norm.running_var.dtype == torch.float16
    assert not torch.equal(plugin.norm.running_var, torch.ones(16).half())
    assert plugin.norm.num_batches_tracked == 1


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_builds_through_mmcv_and_names_bad_features(kind):
    _, layer = build_plugin_layer(dict(type=f"{kind}2d"), in_channels=16)
    with pytest.raises(ValueError, match=r"takes features of shape \(B, C, H, W\)"):
        layer(torch.zeros(1, 16, 2, 2, 2))
    with pytest.raises(ValueError, match="got features of 3 channels"):
        layer(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match="axes is one of"):
        make(kind, 3, in_channels=16, axes="everywhere")


@pytest.mark.parametrize(
    "kind, arguments, message",
    [
        ("DoubleAttention", dict(reduction=0), "reduction is a whole number from 1"),
        ("EfficientAttention", dict(heads=3), "heads=3 does not divide the 8 inner"),
        ("GlobalContext", dict(reduction=99), "from 1 to 16, not 99"),
        ("CompactGeneralizedNL", dict(groups=5), "groups=5 does not divide"),
        ("CompactGeneralizedNL", dict(kernel="sum"), "kernel is one of .*'rbf'"),
        ("CrissCross", dict(recurrence=0), "recurrence is a whole number from 1"),
        ("PyramidNL", dict(grids=[(1, 1)]), "for each of 3 axes"),
        ("SpectralNL", dict(order=0), "order is a whole number from 1 to 16, not 0"),
        ("NonLocalStage", dict(num_units=0), "num_units is a whole number from 1"),
    ],
)
def test_bad_arguments_are_named(kind, arguments, message):
    with pytest.raises(ValueError, match=f"{kind}3d: .*{message}|{message}"):
        make(kind, 3, in_channels=16, **arguments)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_whole_numbers_may_be_those_of_numpy(kind):
    """As sizes that were computed are; PyTorch's own layers take them."""
    signature = inspect.signature(getattr(polynl_mm, f"{kind}3d")).parameters
    defaults = {n: p.default for n, p in signature.items() if type(p.default) is int}
    whole = {name: np.int64(value) for name, value in defaults.items()}
    plain = make(kind, 3, in_channels=16, **defaults)
    plugin = make(kind, 3, in_channels=np.int64(16), **whole)
    plugin.load_state_dict(plain.state_dict())
    x = torch.randn(1, 16, 2, 3, 3)
    assert torch.equal(wake(plugin.eval())(x), wake(plain.eval())(x))
    for name, value in {"in_channels": 16, **defaults}.items():
        with pytest.raises(ValueError, match=rf"{name}.* whole number .*, not 1\.5"):
            make(kind, 3, **{"in_channels": 16, **defaults, name: 1.5})
        if value == 1:
            with pytest.raises(ValueError, match=rf"{name}.*, not True"):
                make(kind, 3, **{"in_channels": 16, **defaults, name: True})


@pytest.mark.parametrize("kind", ["PolyNL", "NonLocalBlock", "GlobalContext"])
def test_norms_of_another_dimension_or_without_weights_are_named(kind):
    with pytest.raises(ValueError, match="'BN' is a BatchNorm2d; use one for 3d"):
        make(kind, 3, in_channels=16, norm_cfg=dict(type="BN"))
    with pytest.raises(ValueError, match="has no weight of its own; set affine=True"):
        make(kind, 3, in_channels=16, norm_cfg=dict(type="IN3d", affine=False))
    make(kind, 3, in_channels=16, norm_cfg=dict(type="GN", num_groups=2))


@pytest.mark.parametrize("kind", [k for k in ALL_KINDS if k not in NO_CONV_BEFORE_NORM])
@torch.no_grad()
def test_norms_fused_into_convolutions_change_nothing(kind):
    """mmcv's fusing gives a convolution the bias that it had no need of."""
    plugin = wake(make(kind, 2, in_channels=16, norm_cfg=dict(type="BN2d")))
    for buffer in plugin.buffers():
        if buffer.is_floating_point():
            nn.init.uniform_(buffer, 0.2, 0.8)
    plugin, x = plugin.double().eval(), torch.randn(2, 16, 4, 5).double()
    expected = plugin(x)
    fused = fuse_conv_bn(plugin)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fused.modules())
    assert torch.allclose(fused(x), expected, rtol=1e-9, atol=1e-9)
