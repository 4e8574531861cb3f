"""The ways that plugins go on a GPU alone, gone on the CPU."""

import pytest
import torch
from gpu_cases import CASES, IDS, assert_near, build, run
from pretended_gpu import pretended_gpu


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(("name", "arguments"), CASES, ids=IDS)
def test_equals_float64(name, arguments, precision):
    plugin, x = build(name, arguments)
    expected = run(plugin.double(), x.double())
    dtype = getattr(torch, precision)
    half = dtype != torch.float32
    with (
        pretended_gpu(),
        torch.autocast("cpu", dtype=dtype if half else None, enabled=half),
    ):
        found = run(plugin.float(), x.float())
    assert_near(plugin, found, expected, precision)
