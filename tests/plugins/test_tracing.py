"""Traces, exports and compiled forms of every plugin do what the plugin does."""

import pytest
import torch
from every_plugin import ALL_KINDS, make, wake
from explained_plugins import CASES
from explained_plugins import make as make_explained
from mmengine.utils import digit_version
from pretended_gpu import pretended_gpu

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
# Of CASES and more; the others are made of torch's operations.
HAVE_OWN_FUNCTIONS = (
    "poly_nl", "poly_nl_heads", "poly_nl_gram", "gaussian", "gaussian_chunks",
    "dot_product", "concatenation", "apnb", "snl", "gsnl_stable", "softmax_3", "stage",
)  # fmt: skip
OLD_TORCH = digit_version(torch.__version__) < digit_version("2.6")


@pytest.mark.parametrize(
    ("dtype", "on_gpu"),
    [(torch.float64, False), (torch.bfloat16, False), (torch.bfloat16, True)],
    ids=str,
)
@pytest.mark.parametrize("kind, arguments", TRACED, ids=str)
def test_traces_with_gradients_on(kind, arguments, dtype, on_gpu, monkeypatch):
    monkeypatch.setattr(pairwise, "_CHUNK", 700)
    with pretended_gpu(on_gpu):
        _trace_with_gradients_on(kind, arguments, dtype)


def _trace_with_gradients_on(kind, arguments, dtype):
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


@pytest.mark.skipif(OLD_TORCH, reason="torch 2.5 does not follow their gradients")
@pytest.mark.parametrize(
    ("name", "within"),
    [
        *((name, False) for name in HAVE_OWN_FUNCTIONS),
        *((name, True) for name in ("poly_nl_gram", "gaussian_chunks", "snl")),
    ],
)
def test_compiled_training_under_autocast_equals_eager(name, within, monkeypatch):
    """A compiler reads a backward pass in one context, and runs it in another."""
    more = {
        "poly_nl_gram": ("PolyNL", dict(schedule="gram", reduction=2)),
        "gaussian_chunks": ("NonLocalBlock", {}),
    }
    kind, arguments = {**CASES, **more}[name]
    if name != "gaussian":
        monkeypatch.setattr(pairwise, "_CHUNK", 1000)
    plugin = make_explained(kind, 3, **arguments).float()
    x = torch.randn(2, 8, 4, 5, 3, requires_grad=True)
    wanted = [x, *plugin.parameters()]

    def train(run):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = run(x).float().square().sum()
            if within:
                return torch.autograd.grad(loss, wanted, allow_unused=True)
        return torch.autograd.grad(loss, wanted, allow_unused=True)

    expected = train(plugin)
    torch.compiler.reset()
    found = train(torch.compile(plugin, fullgraph=True, backend="aot_eager"))
    largest = max(g.abs().max() for g in expected if g is not None)
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            scale = max(other.abs().max(), 0.1 * largest)
            assert (one - other).abs().max() <= 0.1 * scale
