"""Options that no other test needs: each has the effect that its help promises."""

import json
import os

import numpy as np
import onnx
import pytest
import torch
from dumps import write_dump
from mmengine_scalars import SCALARS

from polynl_mm.analysis.accuracy.dumped_results import read_results
from polynl_mm.analysis.cost import benchmark, compare, scaling
from polynl_mm.datasets import bookends
from polynl_mm.datasets.preparation import check_videos, resize_videos
from polynl_mm.experiments import bookends_table
from polynl_mm.recognizers.configs import load_config

NON_LOCAL = "\nmodel['backbone']['non_local'] = (1,)\n"


@pytest.fixture
def dump(tmp_path):
    scores = [[3.0, 1.0, 0.0], [0.0, 1.0, 2.0], [0.0, 1.0, 2.0], [0.0, 2.0, 1.0]]
    return write_dump(tmp_path / "scores.pkl", scores, [0, 1, 1, 1])


@pytest.fixture
def names(tmp_path):
    (tmp_path / "names.txt").write_text("juggling\nrowing\narchery\n")
    return str(tmp_path / "names.txt")


def merged(tool, config, *options):
    train = tool("train")
    args = train.parse_args([str(config), *options])
    cfg = load_config(args.config, args.cfg_options)
    train.merge_args(cfg, args)
    return cfg


def test_learning_rate_follows_the_batch_size(tool, tiny_config, tmp_path):
    extra = "\nauto_scale_lr = dict(enable=False, base_batch_size=8)\n"
    config = tiny_config(tmp_path / "c.py", extra=extra)
    run = [str(config), "--no-validate", "--work-dir", str(tmp_path / "w")]
    tool("train").main([*run, "--auto-scale-lr"])
    (file,) = (tmp_path / "w").rglob("scalars.json")
    rates = [json.loads(line)["lr"] for line in file.read_text().splitlines()]
    assert rates[0] == pytest.approx(0.05 * 2 / 8)  # batches of 2, lr for 8


def test_seeds_of_the_processes(tool, tiny_config, tmp_path):
    config = tiny_config(tmp_path / "c.py")
    assert not merged(tool, config).randomness.get("diff_rank_seed")
    cfg = merged(tool, config, "--diff-rank-seed", "--seed", "3")
    assert cfg.randomness == dict(seed=3, diff_rank_seed=True)


@pytest.mark.parametrize("option", ["--local_rank", "--local-rank"])
def test_local_rank_of_old_launchers(tool, tiny_config, tmp_path, monkeypatch, option):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("LOCAL_RANK", "1")  # so that it is restored
    monkeypatch.delenv("LOCAL_RANK")
    tool("train").parse_args([str(tiny_config(tmp_path / "c.py")), f"{option}=3"])
    assert os.environ["LOCAL_RANK"] == "3"


def test_blocks_of_the_toolkit_are_accelerated(tool, tiny_config, tmp_path, capfd):
    config = tiny_config(tmp_path / "c.py", extra=NON_LOCAL)
    run = [str(config), "--no-validate", "--work-dir", str(tmp_path / "w")]
    tool("train").main([*run, "--accelerate-non-local"])
    log = "".join(path.read_text() for path in (tmp_path / "w").rglob("*.log"))
    assert "2 non-local blocks run at the lower cost" in log
    weights = torch.load(tmp_path / "w" / "epoch_1.pth", weights_only=False)
    assert any(".non_local_block.theta.conv" in key for key in weights["state_dict"])
    test = tool("test").main
    checkpoint = str(tmp_path / "w" / "epoch_1.pth")
    test([str(config), checkpoint, "--work-dir", str(tmp_path / "t")])
    plain = capfd.readouterr().out
    work_dir = ["--work-dir", str(tmp_path / "t")]
    test([str(config), checkpoint, *work_dir, "--accelerate-non-local"])
    top1 = [text.split("acc/top1: ")[1][:6] for text in (plain, capfd.readouterr().out)]
    assert top1[0] == top1[1]


def test_title_and_keys_of_curves(tool, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "scalars.json").write_text("\n".join(map(json.dumps, SCALARS)))
    out = tmp_path / "c.svg"
    options = ["--keys", "acc/top1", "--title", "Two blocks", "--out", str(out)]
    main = tool("analysis_tools/analyze_logs").main
    main(["plot_curve", str(run / "scalars.json"), *options])
    assert "The curves of acc/top1 are in" in capsys.readouterr().out
    assert "<!-- Two blocks -->" in out.read_text()


def test_words_of_a_confusion_matrix(tool, dump, names, tmp_path, capsys):
    out = tmp_path / "m.svg"
    options = ["--label-file", names, "--title", "A split", "--out", str(out)]
    main = tool("analysis_tools/confusion_matrix").main
    main([str(dump), *options, "--most-confused", "0"])
    assert "rowing ->" not in capsys.readouterr().out
    picture = out.read_text()
    assert "<!-- A split -->" in picture and "<!-- archery -->" in picture
    main([str(dump), *options, "--most-confused", "1"])
    assert "rowing -> archery" in capsys.readouterr().out


def test_names_of_classes(tool, dump, names, capsys):
    main = tool("analysis_tools/per_class_accuracy").main
    main([str(dump), "--label-file", names])
    said = capsys.readouterr().out
    assert "juggling" in said and "rowing" in said


def test_scores_are_made_probabilities(tool, dump, tmp_path, capsys):
    main = tool("analysis_tools/report_accuracy").main
    fused = tmp_path / "fused.pkl"
    main(["--preds", str(dump), "--apply-softmax", "--dump", str(fused)])
    scores, plain = (np.array(read_results(f).scores) for f in (fused, dump))
    expected = np.exp(plain) / np.exp(plain).sum(1, keepdims=True)
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_seconds_that_a_picture_is_shown(tool, tiny_config, tmp_path, monkeypatch):
    import matplotlib.pyplot as plt

    shown = []
    monkeypatch.setattr(plt, "get_backend", lambda: "TkAgg")
    monkeypatch.setattr(plt, "pause", shown.append)
    config = tiny_config(tmp_path / "c.py")
    model = tool("train")
    run = [str(config), "--no-validate", "--work-dir", str(tmp_path / "w")]
    model.main(run)
    checkpoint = str(tmp_path / "w" / "epoch_1.pth")
    options = ["--show", "--wait-time", "0.25", "--interval", "5"]
    tool("test").main([str(config), checkpoint, *options, *run[2:]])
    assert shown == [0.25] * 3  # of 12 samples, in batches of 4


def test_alpha_of_converted_blocks(tool, tiny_config, tmp_path):
    from mmengine.registry import MODELS

    from polynl_mm.stack import require_mmaction2

    require_mmaction2()
    cfg = load_config(str(tiny_config(tmp_path / "nl.py", extra=NON_LOCAL)))
    model = MODELS.build(dict(cfg.model, _scope_="mmaction"))
    torch.save(dict(state_dict=model.state_dict()), tmp_path / "nl.pth")
    main = tool("convert/non_local_to_polynl").main
    target = tmp_path / "start.pth"
    main([str(tmp_path / "nl.pth"), str(target), "--alpha", "0.5"])
    weights = torch.load(target)["state_dict"]
    assert {float(v) for k, v in weights.items() if k.endswith(".alpha")} == {0.5}


def test_published_without_its_config_exported_for_an_opset(
    tool, tiny_config, tmp_path
):
    config = tiny_config(tmp_path / "c.py")
    tool("train").main([str(config), "--no-validate", "--work-dir", str(tmp_path)])
    checkpoint = str(tmp_path / "epoch_1.pth")
    publish = tool("deployment/publish_model").main
    publish([checkpoint, str(tmp_path / "with.pth")])
    publish([checkpoint, str(tmp_path / "without.pth"), "--drop-config"])
    metas = [
        torch.load(next(tmp_path.glob(f"{name}_*.pth")), weights_only=False)["meta"]
        for name in ("with", "without")
    ]
    assert "cfg" in metas[0] and "cfg" not in metas[1]
    out = tmp_path / "m.onnx"
    options = ["--shape", "3", "2", "32", "32", "--opset", "20", "--out", str(out)]
    tool("deployment/export_onnx").main([str(config), checkpoint, *options])
    (version,) = [o.version for o in onnx.load(out).opset_import if not o.domain]
    assert version == 20


def test_setting_of_a_benchmark(tool, tmp_path, monkeypatch):
    module = tool("analysis_tools/benchmark_plugins")
    threads = []
    monkeypatch.setattr(module.torch, "set_num_threads", threads.append)
    options = ["--channels", "8", "--clip-lengths", "1", "2", "--size", "4"]
    options += ["--batch", "2", "--dtype", "bfloat16", "--repeats", "1"]
    options += ["--subjects", "conv 1x1x1", "--threads", "1", "--device", "cpu"]
    module.main([*options, "--out", str(tmp_path)])
    content = json.loads((tmp_path / "benchmark.json").read_text())
    setting = content["setting"]
    assert setting["channels"] == 8 and setting["size"] == 4 and setting["batch"] == 2
    assert setting["dtype"] == "bfloat16" and threads == [1]
    assert "conv 1x1x1" in json.dumps(content["points"]) and (
        "PolyNL3d" not in json.dumps(content["points"])
    )
    taken = []
    monkeypatch.setattr(
        module, "benchmark", lambda setting, *_, **__: taken.append(setting) or []
    )
    monkeypatch.setattr(module, "format_table", lambda _: "")
    module.main(["--compile", "--out", str(tmp_path)])
    assert taken[0].compiled and isinstance(taken[0], benchmark.Setting)


def test_repeats_and_threads_of_comparisons(tool, monkeypatch, capsys):
    module = tool("analysis_tools/compare_schedules")
    assert module.compare_forward is compare.compare_forward
    threads = []
    monkeypatch.setattr(module.torch, "set_num_threads", threads.append)
    for name in ("compare_forward", "compare_training"):
        monkeypatch.setattr(module, name, lambda repeats: f"{repeats} repeats")
    monkeypatch.setattr(module, "measure_quadratic_modes", lambda: "modes")
    module.main(["--repeats", "3", "--threads", "1"])
    assert threads == [1]
    assert capsys.readouterr().out.split("\n\n")[:2] == ["3 repeats", "3 repeats"]


def test_batch_and_threads_of_scaling(tiny_config, tmp_path):
    config = str(tiny_config(tmp_path / "c.py"))
    options = ["--shape", "3", "2", "16", "16", "--batch-size", "5", "--threads", "1"]
    setting = scaling.read_setting(
        load_config(config), scaling.parse_args([config, *options])
    )
    assert setting.batch_size == 5 and setting.threads == 1


def test_blocks_seeds_and_page_of_the_bookends_table(tmp_path, monkeypatch):
    runs = []

    def run_once(block, seed, *_):
        runs.append((block, seed))
        return dict(top1=0.5, seconds_per_epoch=1.0)

    monkeypatch.setattr(bookends_table, "run_once", run_once)
    monkeypatch.setattr(bookends_table, "generate_bookends", lambda *_, **__: None)
    page = tmp_path / "page.md"
    page.write_text((bookends_table.ROOT / "docs/bookends.md").read_text())
    options = ["--blocks", "no_plugin", "polynl", "--seeds", "4", "5"]
    options += ["--work-dir", str(tmp_path), "--page", str(page)]
    bookends_table.main(options)
    assert runs == [("", 4), ("-polynl", 4), ("", 5), ("-polynl", 5)] or (
        len(runs) == 4 and {seed for _, seed in runs} == {4, 5}
    )
    assert "| 2 | 50.0 ± 0.0 |" in page.read_text()


def test_colours_and_jobs_of_bookends(tmp_path):
    options = [str(tmp_path / "b"), "--train", "4", "--val", "4", "--size", "32"]
    bookends.main([*options, "--colours", "red", "blue", "--jobs", "2"])
    (file,) = (tmp_path / "b").glob("*.json")
    assert json.loads(file.read_text())["colours"] == ["red", "blue"]
    assert len(list((tmp_path / "b").rglob("*.mp4"))) == 8
    bookends.main([*options, "--colours", "red", "green", "--overwrite"])
    assert json.loads(file.read_text())["colours"] == ["red", "green"]


def test_jobs_of_checking_and_resizing(tiny_dataset, tmp_path, capsys):
    videos = str(tiny_dataset / "videos")
    for jobs in ("1", "2"):
        good = tmp_path / f"good{jobs}.txt"
        options = ["--videos", videos, "--jobs", jobs, "--out", str(good)]
        check_videos.main([str(tiny_dataset / "list.txt"), *options])
        assert len(good.read_text().splitlines()) == 12
    target = tmp_path / "small"
    source = [str(tiny_dataset / "videos"), str(target)]
    resize_videos.main([*source, "--short-side", "32", "--jobs", "2"])
    assert len(list(target.rglob("*.mp4"))) == 12
