"""The arithmetic of scaling, and one real measurement without its seconds."""

import dataclasses
import json
import logging
from types import SimpleNamespace

import pytest
import torch

from polynl_mm.analysis.cost import scaling
from polynl_mm.commands import measure_scaling
from polynl_mm.recognizers.configs import load_config
from polynl_mm.user_errors import UserError


def test_efficiency_compares_the_same_rounds():
    # The machine is half as fast in the second and third round.
    rows = scaling.summarize({1: [10.0, 5.0, 5.0], 4: [30.0, 15.0, 10.0]})
    assert [row["clips_per_second"] for row in rows] == [5.0, 15.0]
    assert [row["speedup"] for row in rows] == [1.0, 3.0]
    assert [row["efficiency"] for row in rows] == [1.0, 0.75]
    assert "| 4 | 15.00 | 3.00 | 75% |" in scaling.format_table(rows)


def test_fewest_processes_are_the_base():
    rows = scaling.summarize({2: [10.0], 4: [15.0]})
    assert [row["efficiency"] for row in rows] == [1.0, 0.75]


def test_plot_is_a_picture(tmp_path):
    rows = scaling.summarize({1: [1.0], 2: [1.9], 4: [3.0]})
    scaling.plot(rows, tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")


def test_unfit_options(tiny_config, tmp_path):
    config = str(tiny_config(tmp_path / "c.py"))
    cfg = load_config(config)
    shape = ["--shape", "3", "4", "16", "16"]
    for options, sentence in (
        ([*shape, "--processes", "2"], "two or more different numbers"),
        ([*shape, "--rounds", "0"], "--rounds is a whole number from 1, not 0"),
        (["--shape", "4", "3", "16", "16"], "Recognizer3D is 3 T H W, not 4 3 16 16"),
    ):
        with pytest.raises(UserError, match=sentence):
            scaling.read_setting(cfg, measure_scaling.parse_args([config, *options]))
    args = measure_scaling.parse_args([config, *shape, "--processes", "2", "1"])
    setting = scaling.read_setting(cfg, args)
    assert setting.processes == (1, 2) and setting.batch_size == 2
    assert setting.shape == (1, 3, 4, 16, 16)


def test_batch_size_and_threads_of_a_process(tiny_config, tmp_path, monkeypatch):
    config = str(tiny_config(tmp_path / "c.py"))
    cfg, timed, rates = load_config(config), [], []

    def time(step, setting, device):
        timed.append((len(step.args[0]["inputs"]), torch.get_num_threads()))
        return 2.0

    names = ("init_process_group", "new_group", "barrier", "destroy_process_group")
    nothing = SimpleNamespace(**{name: lambda *_, **__: None for name in names})
    monkeypatch.setattr(scaling, "dist", nothing)
    monkeypatch.setattr(scaling, "_time", time)
    options = ["--shape", "3", "2", "16", "16", "--device", "cpu", "--rounds", "2"]
    options += ["--batch-size", "3", "--threads", str(torch.get_num_threads() + 1)]
    setting = scaling.read_setting(cfg, measure_scaling.parse_args([config, *options]))
    before = torch.get_num_threads()
    try:
        alone = dataclasses.asdict(dataclasses.replace(setting, processes=(1,)))
        plain = cfg.to_dict()
        scaling._take_turns(0, plain, alone, 0, SimpleNamespace(put=rates.append))
    finally:
        torch.set_num_threads(before)
        logging.disable(logging.NOTSET)
    assert timed == [(3, before + 1)] * 2
    assert rates == [{1: [3 * setting.steps / 2.0] * 2}]


def test_changed_config_is_measured(tiny_config, tmp_path, monkeypatch):
    config, batch_sizes = str(tiny_config(tmp_path / "c.py")), []

    def measure(cfg, setting):
        batch_sizes.append((cfg.train_dataloader.batch_size, setting.batch_size))
        return {1: [1.0], 2: [2.0]}

    monkeypatch.setattr(scaling, "measure_scaling", measure)
    options = ["--shape", "3", "2", "16", "16", "--out", str(tmp_path)]
    options += ["--cfg-options", "train_dataloader.batch_size=3"]
    measure_scaling.main([config, *options])
    assert batch_sizes == [(3, 3)]


@pytest.mark.slow
def test_two_processes_are_measured(tiny_config, tmp_path, capsys):
    config = str(tiny_config(tmp_path / "c.py"))
    options = ["--shape", "3", "2", "16", "16", "--processes", "1", "2"]
    options += ["--rounds", "2", "--steps", "1", "--device", "cpu"]
    measure_scaling.main([config, *options, "--out", str(tmp_path)])
    content = json.loads((tmp_path / "scaling.json").read_text())
    assert [row["processes"] for row in content["results"]] == [1, 2]
    assert all(len(row["rounds"]) == 2 for row in content["results"])
    assert content["setting"]["batch_size"] == 2 and content["gradient_bytes"] > 0
    assert "| processes | clips per second |" in capsys.readouterr().out
    assert not (tmp_path / "scaling.png").exists()  # two points make no curve
