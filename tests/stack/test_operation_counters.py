"""MMEngine's counter against torch's, which counts what is really run."""

import pytest
import torch
from mmengine.analysis.complexity_analysis import FlopAnalyzer
from torch.utils.flop_counter import FlopCounterMode

import polynl_mm
from polynl_mm.analysis.cost.operations import _ALSO_COUNTED

MODES = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")
KINDS = sorted({name[:-2] for name in polynl_mm.__all__ if name.endswith("3d")})
CASES = [(kind, {}) for kind in KINDS if kind != "NonLocalBlock"]
CASES += [("NonLocalBlock", dict(mode=mode)) for mode in MODES]
CASES += [("PolyNL", dict(schedule=name)) for name in ("direct", "gram")]
PRODUCTS = ("matmul", "mm", "bmm", "addmm", "conv", "linear", "einsum", "attention")


@pytest.mark.parametrize("axes", ["spacetime", "space", "time"])
@pytest.mark.parametrize("grad", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize(("kind", "options"), CASES, ids=str)
def test_counters_agree(kind, options, grad, axes):
    plugin = getattr(polynl_mm, f"{kind}3d")(16, axes=axes, **options).eval()
    x = torch.randn(2, 16, 4, 6, 6)
    with torch.set_grad_enabled(grad):
        with FlopCounterMode(display=False, custom_mapping=_ALSO_COUNTED) as counter:
            plugin(x)
        analyzer = FlopAnalyzer(plugin, (x,))
        analyzer.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        analyzer.tracer_warnings("none")
        found = sum(
            count
            for name, count in analyzer.by_operator().items()
            if any(product in name for product in PRODUCTS)
        )
    expected = counter.get_total_flops() / 2
    assert found == pytest.approx(expected, rel=0.01)


def test_traced_plugins_have_the_gradients_of_the_plain_operations():
    for kind, options in CASES:
        torch.manual_seed(0)
        plugin = getattr(polynl_mm, f"{kind}3d")(16, zero_init=False, **options).eval()
        x = torch.randn(1, 16, 3, 4, 4).double().requires_grad_()
        plugin.double()
        traced = torch.jit.trace(plugin, x, check_trace=False)
        expected, found = plugin(x), traced(x)
        torch.testing.assert_close(found, expected)
        weights = torch.linspace(-1, 1, x.numel()).double().view_as(x)
        for is_, should in zip(
            torch.autograd.grad(found, x, weights),
            torch.autograd.grad(expected, x, weights),
            strict=True,
        ):
            torch.testing.assert_close(is_, should)
