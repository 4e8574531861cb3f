"""benchmark_models.py on a tiny network; it asserts nothing on seconds."""

import json

import pytest
import torch

from polynl_mm.analysis.cost.network_setting import MMCV, NO_PLUGIN
from polynl_mm.analysis.cost.network_tables import format_networks
from polynl_mm.analysis.cost.whole_networks import variants_of, view_of
from polynl_mm.experiments.page_tables import END, START
from polynl_mm.recognizers.building import build_recognizer
from polynl_mm.recognizers.configs import load_config
from polynl_mm.user_errors import UserError

TOOL = "analysis_tools/benchmark_models"
PLUGINS = """
backbone = model['backbone']
backbone.update(of=backbone.pop('type'), type='WithPlugins', plugins=[
    dict(cfg=dict(type='SpectralNL3d', order=2), stages=(True,), blocks='last')])
"""
CONFIGS = {
    "slowonly/slowonly_r50-polynl_8xb16-8x8x1-256e": (3, 8, 224, 224),
    "i3d/i3d_imagenet-pretrained-r50-polynl_8xb8-32x2x1-100e": (3, 32, 224, 224),
    "slowfast/slowfast_r50-polynl_8xb8-8x8x1-256e": (3, 32, 224, 224),
    "tsm/tsm_imagenet-pretrained-r50-polynl_8xb16-1x1x8-50e": (8, 3, 224, 224),
    "c2d/c2d_r50-in1k-pre-polynl_8xb32-8x8x1-100e": (3, 8, 224, 224),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_places_are_the_same_in_every_variant(name):
    cfg = load_config(f"configs/{name}_kinetics400-rgb.py")
    assert view_of(cfg) == CONFIGS[name]
    places = {}
    for variant, changed in variants_of(cfg, [1, 4]).items():
        with torch.device("meta"):
            model = build_recognizer(changed, name)
        names = ("PolyNL", "NonLocal") if variant != NO_PLUGIN else ("NL", "NonLocal")
        found = {
            path.rpartition(".")[0]: module
            for path, module in model.named_modules()
            if type(module).__name__.startswith(names)
        }
        places[variant] = set(found)
        if variant == "PolyNL, reduction 4":
            assert {m.reduction for m in found.values()} == {4}
    assert places.pop(NO_PLUGIN) == set()
    assert len(places[MMCV]) == 5
    assert len({frozenset(where) for where in places.values()}) == 1


def test_numbers_of_a_tiny_network(tool, tiny_config, tiny_dataset, tmp_path, capsys):
    config = str(tiny_config(tmp_path / "tiny_r18.py", extra=PLUGINS))
    out, page = tmp_path / "o" / "models.json", tmp_path / "page.md"
    page.write_text(f"before\n{START}\n{END}\nafter\n")
    threads = torch.get_num_threads()
    options = ["--shape", "3", "4", "16", "16", "--reduction", "1", "2"]
    options += ["--batch", "2", "--rounds", "1", "--threads", str(threads)]
    options += ["--videos", str(tiny_dataset), "--out", str(out), "--page", str(page)]
    tool(TOOL).main([config, *options])
    results = json.loads(out.read_text())
    assert results["machine"]["threads"] == threads
    (network,) = results["networks"]
    rows = {row["variant"]: row for row in network["variants"]}
    assert list(rows) == [NO_PLUGIN, *(f"PolyNL, reduction {r}" for r in (1, 2)), MMCV]
    for row in rows.values():
        assert row["operations"] == row["gflops"] / rows[NO_PLUGIN]["gflops"]
        for key in ("latency", "training", "memory", "speed"):
            assert row[key] > 0 and row[f"{key}_to_mmcv"] > 0
        assert row["latency_over_operations"] == row["latency"] / row["operations"]
        # A backward pass makes about two products for each of the forward pass.
        assert 2 < row["training_gflops"] / row["gflops"] / 2 < 3.1
    assert rows[NO_PLUGIN]["latency"] == rows[MMCV]["speed_to_mmcv"] == 1
    tables = format_networks(results)
    assert tables in capsys.readouterr().out
    assert page.read_text() == f"before\n{START}\n{tables}\n{END}\nafter\n"
    assert not out.with_suffix(".md").exists()
    assert "| tiny, 3 x 4 x 16 x 16: no plugin |" in tables

    page.write_text(f"{START}\n{END}\n")
    tool(TOOL).main(["--out", str(out), "--page", str(page)])
    assert tables in page.read_text()


def test_only_what_is_asked_for_is_measured(tool, tiny_config, tmp_path):
    config = str(tiny_config(tmp_path / "tiny.py", extra=PLUGINS))
    out = tmp_path / "models.json"
    shape = ["--shape", "3", "4", "16", "16", "--rounds", "1"]
    tool(TOOL).main([config, *shape, "--measure", "latency", "--out", str(out)])
    row = json.loads(out.read_text())["networks"][0]["variants"][0]
    assert "latency_ms" in row and "training_gflops" not in row
    table = out.with_suffix(".md").read_text()
    assert table == format_networks(json.loads(out.read_text())) + "\n"
    assert table.count("|---") == 6


def test_video_that_cannot_be_decoded_is_named(tool, tiny_config, tmp_path, capsys):
    config = str(tiny_config(tmp_path / "tiny.py", extra=PLUGINS))
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"no video")
    options = ["--shape", "3", "4", "16", "16", "--rounds", "1", "--measure"]
    options += ["decoding", "--videos", str(tmp_path / "videos")]
    with pytest.raises(SystemExit):
        tool(TOOL).main([config, *options, "--out", str(tmp_path / "o.json")])
    assert "--videos: broken.mp4 cannot be decoded (" in capsys.readouterr().err


def test_what_cannot_be_measured_is_said(tool, tiny_config, tmp_path, capsys):
    plain = str(tiny_config(tmp_path / "plain.py"))
    with pytest.raises(UserError, match=r"no model\.backbone\.plugins"):
        variants_of(load_config(plain), [1])
    for options, sentence in (
        ([], "Give configs to measure"),
        ([plain, "--rounds", "0"], "--rounds is a whole number from 1"),
        ([plain, "--out", "a.txt"], "--out takes a .json file"),
        ([plain, "--page", plain], "needs the lines"),
    ):
        with pytest.raises(SystemExit):
            tool(TOOL).main(options)
        assert sentence in capsys.readouterr().err
