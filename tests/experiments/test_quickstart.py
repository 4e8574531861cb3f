"""The quickstart's pieces; the whole of it runs in .ci/run with --fast."""

import json
import os
import subprocess

import pytest
from matplotlib.image import imread
from mmengine_scalars import SCALARS

from polynl_mm.experiments import quickstart as qs
from polynl_mm.user_errors import UserError


def test_table_lines_up():
    result = {"parameters": 174818, "gflops": 0.0916, "seconds_per_epoch": 12.3}
    table = qs.format_table(
        {"no_plugin": {"top1": 0.5, **result}, "poly_nl": {"top1": 1.0, **result}}
    )
    lines = table.splitlines()
    assert len(lines) == 3 and len({len(line) for line in lines}) == 1
    assert lines[1].split() == ["no", "plugin", "50.0%", "174,818", "0.092", "12.3"]
    assert lines[2].split()[:2] == ["PolyNL3d", "100.0%"]


def test_picture_shows_both_curves(tmp_path):
    path = tmp_path / "accuracy.png"
    qs.plot_accuracy({"no_plugin": [0.5, 0.52], "poly_nl": [0.7, 1.0]}, path)
    pixels = (imread(path)[..., :3] * 255).round().astype(int)
    # grey, and the blue of PolyNL3d
    for colour in (127, 127, 127), (0, 114, 178):
        assert (abs(pixels - colour).max(-1) <= 1).sum() > 300
    assert [file.name for file in tmp_path.iterdir()] == ["accuracy.png"]


def test_models_are_measured():
    plain, plugin = (qs.measure_model(qs.ROOT / c) for c in qs.CONFIGS.values())
    # Three 32 x 32 projections, alpha and beta.
    assert plugin["parameters"] - plain["parameters"] == 3 * 32 * 32 + 2
    # 8 frames of 16 x 16 after the stem, of which conv1 alone takes
    # 2 * 32 * (3 * 7 * 7) * 8 * 16 * 16 operations.
    assert plain["gflops"] > 2 * 32 * 147 * 8 * 256 / 1e9
    assert plain["gflops"] < plugin["gflops"] < 1.1 * plain["gflops"]


@pytest.mark.parametrize("size", [qs.FULL, qs.FAST])
def test_options_fit_the_configs(size):
    from polynl_mm.recognizers.command_line import CfgOptions
    from polynl_mm.recognizers.configs import load_config

    parser = qs.argparse.ArgumentParser()
    parser.add_argument("--cfg-options", nargs="+", action=CfgOptions)
    options = parser.parse_args(qs.config_options(size)).cfg_options
    for config in qs.CONFIGS.values():
        # Unknown keys are refused.
        cfg = load_config(str(qs.ROOT / config), options)
        assert cfg.train_cfg.max_epochs == cfg.param_scheduler[1].T_max == size.epochs
        for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
            assert loader.dataset.ann_file.startswith(size.data + "/")
            assert loader.dataset.data_prefix.video == size.data


def test_acceptance_is_measured_on_enough_clips():
    assert qs.FULL.parameters.val >= 400
    plain, plugin = (qs.ROOT / config for config in qs.CONFIGS.values())
    # The same schedule: the second config changes the backbone and nothing else.
    changed = [line for line in plugin.read_text().splitlines() if "=" in line]
    assert plain.name in changed[0]
    assert not any("optim" in line or "cfg =" in line for line in changed)


@pytest.fixture
def pretend(monkeypatch, tmp_path):
    """Replace data, training and evaluation by files like theirs."""

    def run_tool(command, log, watch=lambda: None):
        def after(option):
            return command[command.index(option) + 1]

        if "dist_train" in command[1]:
            folder = qs.Path(after("--work-dir")) / "2026" / "vis_data"
            folder.mkdir(parents=True)
            lines = "".join(json.dumps(record) + "\n" for record in SCALARS)
            (folder / "scalars.json").write_text(lines)
        else:
            top1 = 0.97 if "polynl" in command[2] else 0.51
            qs.Path(after("--metrics")).write_text(json.dumps({"acc/top1": top1}))
        watch()

    def measure(config):
        return {"parameters": 10, "gflops": 0.1}

    monkeypatch.setattr(qs, "run_tool", run_tool)
    monkeypatch.setattr(qs, "generate_bookends", lambda *args, **kwargs: None)
    monkeypatch.setattr(qs, "measure_model", measure)
    return tmp_path / "out"


def test_results_come_from_the_evaluated_checkpoints(pretend, capsys):
    for _ in range(2):  # running it again is safe
        qs.main(["--fast", "--work-dir", str(pretend), "--seed", "5"])
        results = json.loads((pretend / "results.json").read_text())
        assert results["no_plugin"]["top1"] == 0.51
        assert results["poly_nl"]["top1"] == 0.97
        assert results["poly_nl"]["validation_top1"] == [0.55, 0.95]
        assert results["poly_nl"]["checkpoint"].endswith("poly_nl/epoch_3.pth")
        assert results["poly_nl"]["seconds_per_epoch"] == pytest.approx(7.0)
        assert results["seed"] == 5 and results["val_clips"] == 240
        assert (pretend / "accuracy.png").stat().st_size > 10_000
    out = capsys.readouterr().out
    assert "97.0%" in out and "51.0%" in out
    assert str(pretend) in out.splitlines()[-1]


def test_old_results_do_not_survive_a_failed_run(pretend, monkeypatch, capsys):
    qs.main(["--fast", "--work-dir", str(pretend)])

    def fail(*args, **kwargs):
        raise UserError("no space left")

    monkeypatch.setattr(qs, "generate_bookends", fail)
    with pytest.raises(SystemExit) as exit_info:
        qs.main(["--fast", "--work-dir", str(pretend)])
    assert exit_info.value.code == 2
    assert capsys.readouterr().err == "Error: no space left\n"
    assert not list(pretend.glob("*.json")) and not list(pretend.glob("*.png"))


def test_help_needs_no_installation():
    script = qs.ROOT / "tools" / "quickstart.sh"
    said = subprocess.run(
        ["bash", str(script), "--help"],
        env={"PATH": os.environ["PATH"], "POLYNL_ENV": "nowhere"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "--fast" in said and "--work-dir" in said and "set -" not in said
