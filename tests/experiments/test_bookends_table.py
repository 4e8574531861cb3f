"""The table of Bookends runs, without the runs."""

import json

import pytest

from polynl_mm.experiments import bookends_table as table
from polynl_mm.experiments.quickstart import FULL, ROOT
from polynl_mm.user_errors import UserError

RUNS = [dict(top1=t, seconds_per_epoch=s) for t, s in ((0.5, 8), (0.7, 9), (0.6, 30))]
COST = dict(parameters=174818, gflops=0.0458)


def test_every_block_has_a_config():
    for block in table.BLOCKS:
        assert (ROOT / table.PATTERN.format(block)).is_file(), block


def test_rows_have_mean_spread_and_cost():
    rows = table.format_results(
        {"": RUNS, "-polynl": RUNS[:1]}, {"": COST, "-polynl": COST}
    )
    assert "| no plugin | 3 | 60.0 ± 10.0 | 50.0 | 8.0 | 174,818 | 0.046 |" in rows
    assert "| PolyNL3d | 1 | 50.0 | 50.0 |" in rows


def test_finished_runs_are_not_run_again(tmp_path, monkeypatch):
    done = tmp_path / "polynl" / "seed_1.json"
    done.parent.mkdir()
    done.write_text(json.dumps(RUNS[0]))
    monkeypatch.setattr(table, "train", lambda *_: pytest.fail("trained again"))
    assert table.run_once("-polynl", 1, None, tmp_path) == RUNS[0]


def test_damaged_result_is_named(tmp_path):
    done = tmp_path / "no_plugin" / "seed_0.json"
    done.parent.mkdir()
    done.write_text('{"top1": 1.0}')
    assert table.run_once("", 0, FULL, tmp_path) == {"top1": 1.0}
    done.write_text('{"top1"')
    with pytest.raises(UserError, match=r"seed_0\.json is no JSON; delete it"):
        table.run_once("", 0, FULL, tmp_path)
