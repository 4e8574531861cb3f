"""Where the blocks look on Bookends: discs, checkpoints, measures, table."""

import json

import numpy as np
import pytest
import torch

from polynl_mm.datasets.bookends import generate_bookends
from polynl_mm.datasets.bookends_clips import (
    PALETTE,
    BookendsParameters,
    discs_of,
    plan_clips,
    render_clip,
)
from polynl_mm.experiments import bookends_influence, bookends_looks
from polynl_mm.experiments.bookends_table import PATTERN
from polynl_mm.experiments.page_tables import marks
from polynl_mm.recognizers.building import build_recognizer
from polynl_mm.recognizers.configs import load_config
from polynl_mm.user_errors import UserError

SMALL = BookendsParameters(train=2, val=4, seed=5)


def test_discs_are_where_the_frames_show_them():
    for clip in plan_clips(SMALL, "val"):
        frames = render_clip(SMALL, clip).astype(int)
        first, last = discs_of(SMALL, clip)
        assert (first.colour, last.colour) == (clip.first, clip.last)
        assert sorted(first.centres) == list(range(7))
        assert sorted(last.centres) == list(range(9, 16))
        for disc in (first, last):
            for time, (row, column) in disc.centres.items():
                away = np.abs(frames[time] - PALETTE[disc.colour]).max(axis=2)
                rows, columns = (away <= 17).nonzero()  # the noise is 16 at most
                assert abs(rows.mean() - row) < 1
                assert abs(columns.mean() - column) < 1
                area = np.pi * disc.radius**2
                assert len(rows) == pytest.approx(area, rel=0.15)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder of runs as the trainings leave it, of blocks that have learned nothing.

    PolyNL3d is given weights by which a position contributes as its features are long.
    """
    folder = tmp_path_factory.mktemp("runs")
    for block, seed, epochs in (
        ("-polynl", 0, (4, 5)),
        ("-nlstage", 2, (5,)),
        ("-cgnl", 1, (3,)),
    ):
        run = folder / block.strip("-") / f"seed_{seed}"
        run.mkdir(parents=True)
        config = PATTERN.format(block)
        torch.manual_seed(0)
        model = build_recognizer(load_config(config), config)
        for name, parameter in model.named_parameters():
            if name.endswith("alpha"):
                torch.nn.init.ones_(parameter)
            elif (block == "-polynl" and ".theta." in name) or ".phi." in name:
                torch.nn.init.dirac_(parameter)
        for epoch in epochs:
            torch.save(dict(state_dict=model.state_dict()), run / f"epoch_{epoch}.pth")
    return folder


def test_checkpoints_of_finished_runs_are_found(runs, tmp_path):
    found = bookends_looks.find_checkpoints(runs)
    assert found == {
        "-polynl": {0: runs / "polynl/seed_0/epoch_5.pth"},
        "-nlstage": {2: runs / "nlstage/seed_2/epoch_5.pth"},
    }
    with pytest.raises(UserError, match="has no checkpoints BLOCK/seed_N/epoch"):
        bookends_looks.find_checkpoints(tmp_path)


def test_table_and_record_are_written(runs, tmp_path, capsys):
    data = generate_bookends(tmp_path / "data", SMALL)
    page, (start, end) = tmp_path / "page.md", marks("influence")
    page.write_text(f"before\n{start}\n{end}\nafter\n")
    arguments = ["--work-dir", str(runs), "--data", str(data), "--page", str(page)]
    bookends_influence.main([*arguments, "--clips", "3"])
    lines = page.read_text().splitlines()
    assert lines[0] == "before" and lines[-1] == "after"
    assert lines[4].startswith("| PolyNL3d | 1 | ")
    assert lines[5].startswith("| NonLocalStage3d | 1 | ")
    record = json.loads((runs / "influence.json").read_text())
    assert record["clips"] == 3
    measured = record["blocks"]["PolyNL3d"]["0"]
    assert 0 <= measured["peak"] <= 1
    assert measured["length"] > 0 and np.isfinite(measured["first"])


def test_equal_shares_measure_as_one(runs, monkeypatch):
    """Of positions that all contribute alike, discs have what their area has."""
    from polynl_mm.analysis.influence import Contributions

    def explain(plugin, seen, at):
        terms = torch.ones_like(seen.features[0])
        return Contributions(at[1:], terms, terms[:, 0, 0, 0])

    monkeypatch.setattr(bookends_looks, "explain", explain)
    clips = [(clip, discs_of(SMALL, clip)) for clip in plan_clips(SMALL, "val")[:2]]
    folder = generate_bookends(runs / "data", SMALL)
    clips = [(str(folder / clip.path), discs) for clip, discs in clips]
    measured = bookends_looks.measure(
        "-polynl", runs / "polynl/seed_0/epoch_5.pth", clips
    )
    for name in ("first", "last", "length"):
        assert measured[name] == pytest.approx(1, abs=1e-5)


def test_rows_have_mean_and_lowest():
    run = dict(first=10.0, last=2.0, length=8.0, peak=0.5)
    other = dict(first=6.0, last=4.0, length=6.0, peak=1.0)
    rows = bookends_looks.format_results({"-polynl": {0: run, 1: other}})
    assert "| PolyNL3d | 2 | 8.0 | 6.0 | 7.0 | 75 | 3.0 |" in rows


def test_mistakes_are_said(runs, tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("no marks\n")
    for options, said in (
        (["--page", str(page)], "needs the lines <!-- influence: begin -->"),
        (["--clips", "0"], "--clips is a whole number from 1"),
    ):
        with pytest.raises(SystemExit):
            bookends_influence.main(["--work-dir", str(runs), *options])
        assert said in capsys.readouterr().err
