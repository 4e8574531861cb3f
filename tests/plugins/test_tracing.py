"""Traces, exports and compiled forms of every plugin do what the plugin does."""

import pytest
import torch
from every_plugin import ALL_KINDS, make, wake
from mmengine.utils import digit_version

from polynl_mm.ops import pairwise

# Each plugin, and each way of one that has gradients of its own.
OWN_FUNCTIONS = [
    *((kind, {}) for kind in ALL_KINDS),
    ("NonLocalBlock", dict(mode="gaussian")),
    ("NonLocalBlock", dict(mode="dot_product")),
    ("NonLocalBlock", dict(mode="concatenation")),
    ("PolyNL", dict(reduction=2)),
    ("PolyNL", dict(reduction=4)),
    ("NonLocalStage", dict(num_units=2)),
    ("SpectralNL", dict(order=3)),
]
TRACED = [
    *OWN_FUNCTIONS,
    ("PolyNL", dict(axes="space", bias=True)),
    ("PolyNL", dict(reduction=4, norm_cfg=dict(type="BN3d"), positions="sine")),
]
OLD_TORCH = digit_version(torch.__version__) < digit_version("2.6")


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind, arguments", TRACED, ids=str)
def test_traces_with_gradients_on(kind, arguments, dtype, monkeypatch):
    monkeypatch.setattr(pairwise, "_CHUNK", 700)
    plugin = wake(make(kind, 3, in_channels=16, **arguments)).to(dtype).eval()
    x = torch.randn(2, 16, 3, 4, 5, dtype=torch.float64).to(dtype).requires_grad_()
    if kind == "CompactGeneralizedNL" and dtype == torch.bfloat16:
        with pytest.raises(RuntimeError, match="bfloat16 cannot be traced: trace it"):
            torch.jit.trace(plugin, x)
        return
    traced = torch.jit.trace(plugin, x)  # which compares the two without gradients
    # A trace holds what is made of sizes, such as 1 / N, in float32.
    tolerance = 1e-6 if dtype == torch.float64 else 0.1
    for wanted in (x, next(plugin.parameters())):
        (expected,) = torch.autograd.grad(plugin(x).square().sum(), wanted)
        (gradient,) = torch.autograd.grad(traced(x).square().sum(), wanted)
        assert (gradient - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.skipif(
    not hasattr(torch.compiler, "is_exporting"), reason="torch from 2.7 tells"
)
@pytest.mark.parametrize("kind, arguments", OWN_FUNCTIONS, ids=str)
def test_exports_with_any_batch_size(kind, arguments, monkeypatch):
    for size in ("_CHUNK", "_CPU_BLOCK"):
        monkeypatch.setattr(pairwise, size, 700)
    plugin = wake(make(kind, 3, in_channels=16, **arguments)).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    with torch.no_grad():
        exported = torch.export.export(
            plugin, (torch.randn(2, 16, 3, 4, 5),), dynamic_shapes=({0: batch},)
        ).module()
        for count in (1, 5):
            x = torch.randn(count, 16, 3, 4, 5)
            assert torch.allclose(exported(x), plugin(x), atol=1e-5)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(
            kind,
            marks=pytest.mark.xfail(
                kind == "PolyNL" and OLD_TORCH,
                reason="torch 2.5 does not follow its gradients",
                strict=False,
            ),
        )
        for kind in ALL_KINDS
    ],
)
def test_compile_and_export_equal_eager(kind):
    plugin = wake(make(kind, 3, in_channels=16)).eval()
    x = torch.randn(2, 16, 3, 4, 5)
    expected = plugin(x)
    compiled = torch.compile(plugin, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(x), expected, atol=1e-5)
    with torch.no_grad():
        exported = torch.export.export(plugin, (x,)).module()
        assert torch.allclose(exported(x), expected, atol=1e-5)
