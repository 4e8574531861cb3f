"""Counted operations against counting by hand and MMAction2's published numbers."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

from polynl_mm import NonLocalBlock3d, PolyNL3d
from polynl_mm.analysis.cost.operations import count_cost, count_recognizer_cost

TOOL = Path(__file__).parents[3] / "tools" / "analysis_tools" / "get_flops.py"
PUBLISHED = {
    "i3d/i3d_imagenet-pretrained-r50_8xb8-32x2x1-100e": ("3 32 256 256", 43.5, 28.0),
    "i3d/i3d_imagenet-pretrained-r50-nl-embedded-gaussian_8xb8-32x2x1-100e": (
        "3 32 256 256",
        59.3,
        35.4,
    ),
    "tsm/tsm_imagenet-pretrained-r50_8xb16-1x1x8-50e": ("8 3 224 224", 32.9, None),
}


def test_products_are_counted_as_the_field_counts_them():
    conv = nn.Conv3d(4, 6, 1)
    cost = count_cost(conv, lambda: conv(torch.zeros(1, 4, 2, 3, 5)))
    assert cost.gflops == pytest.approx(4 * 6 * 30 / 1e9)
    assert cost.parameters == 4 * 6 + 6


def test_hidden_products_are_counted():
    """Those inside autograd functions and scaled_dot_product_attention."""
    C, N = 64, 200
    x = torch.zeros(1, C, 2, 10, 10)
    poly = PolyNL3d(C, schedule="gram")
    gram, diagonal, out = C * C * N, C * C * C, C * C * N
    counted = count_cost(poly, lambda: poly(x)).gflops * 1e9
    assert counted == pytest.approx(gram + diagonal + out)
    block = NonLocalBlock3d(C)
    projections, attention = 4 * C * (C // 2) * N, 2 * (C // 2) * N * N
    counted = count_cost(block, lambda: block(x)).gflops * 1e9
    assert counted == pytest.approx(projections + attention)


def test_products_added_in_place_are_counted():
    total, left, right = (
        torch.zeros(2, 3, 5),
        torch.zeros(2, 3, 4),
        torch.zeros(2, 4, 5),
    )
    counted = count_cost(nn.Identity(), lambda: total.baddbmm_(left, right))
    assert counted.gflops * 1e9 == pytest.approx(2 * 3 * 4 * 5)
    counted = count_cost(nn.Identity(), lambda: total[0].addmm_(left[0], right[0]))
    assert counted.gflops * 1e9 == pytest.approx(3 * 4 * 5)


@pytest.mark.parametrize("name", PUBLISHED)
def test_get_flops_agrees_with_mmaction2(name, capsys):
    spec = importlib.util.spec_from_file_location("get_flops", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    shape, gflops, parameters = PUBLISHED[name]
    config = f"mmaction::recognition/{name}_kinetics400-rgb.py"
    tool.main([config, "--shape", *shape.split()])
    said = capsys.readouterr().out
    counted = float(said.split("FLOPs: ")[1].split()[0])
    # MMAction2's counter adds norms, activations and pooling: .
    assert counted == pytest.approx(gflops, rel=0.01)
    if parameters:
        assert f"Parameters: {parameters} M" in said


def test_flops_of_a_changed_config(tool, tiny_config, tmp_path, capsys):
    config, parameters = str(tiny_config(tmp_path / "c.py")), []
    change = ["--cfg-options", "model.cls_head.num_classes=100002"]
    for options in ([], change):
        tool("analysis_tools/get_flops").main(
            [config, "--shape", "3", "4", "32", "32", *options]
        )
        said = capsys.readouterr().out
        parameters.append(float(said.split("Parameters: ")[1].split()[0]))
    # 100 000 classes more, of 8 features and a bias each.
    assert parameters[1] - parameters[0] == pytest.approx(0.9)


def test_wrong_shape_is_named():
    recognizer = nn.Identity()
    with pytest.raises(ValueError, match="is 3 T H W, such as 3 8 224 224, not 8 3"):
        count_recognizer_cost(recognizer, (8, 3, 64, 64))
