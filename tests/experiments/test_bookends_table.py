"""The table of Bookends runs, without the runs."""

import json

import pytest

from polynl_mm.experiments import bookends_table as table
from polynl_mm.experiments import page_tables
from polynl_mm.experiments.page_tables import END, START
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


@pytest.fixture
def pretend(monkeypatch):
    """Replace data, training and counting; return the runs that were asked for."""
    asked = []

    def train(config, title, size, run, seed, *_):
        asked.append((config, seed, run))
        return []

    monkeypatch.setattr(table, "generate_bookends", lambda *_, **__: None)
    monkeypatch.setattr(table, "train", train)
    monkeypatch.setattr(table, "accuracy_curve", lambda _: [0.5, 0.75])
    monkeypatch.setattr(table, "seconds_per_epoch", lambda _: 8.0)
    monkeypatch.setattr(table, "measure_model", lambda _: COST)
    return asked


def test_blocks_and_seeds(pretend, tmp_path, capsys):
    page, work = tmp_path / "page.md", tmp_path / "w"
    page.write_text(f"before\n{START}\n{END}\n")
    options = ["--work-dir", str(work), "--page", str(page)]
    # Twice the same is once.
    options += ["--blocks", "no_plugin", "polynl", "polynl", "--seeds", "4", "7", "4"]
    table.main(options)
    assert pretend == [
        (table.PATTERN.format(block), seed, work / name / f"seed_{seed}")
        for seed in (4, 7)
        for block, name in (("", "no_plugin"), ("-polynl", "polynl"))
    ]
    said = capsys.readouterr().out
    assert "| no plugin | 2 | 75.0 ± 0.0 |" in said
    assert "| PolyNL3d | 2 | 75.0 ± 0.0 |" in said
    # A part of the blocks is no page.
    assert page.read_text() == f"before\n{START}\n{END}\n"


@pytest.mark.parametrize("level", table.SIZES)
def test_level_has_data_folder_table_and_results_of_its_own(
    pretend, tmp_path, monkeypatch, level
):
    made, page = [], tmp_path / "page.md"
    monkeypatch.setattr(table, "generate_bookends", lambda *a, **_: made.append(a))
    monkeypatch.setattr(table, "ROOT", tmp_path)
    (tmp_path / "docs/results").mkdir(parents=True)
    own, other = (page_tables.marks(table.TABLES[n]) for n in (level, 3 - level))
    page.write_text(f"{other[0]}\nkept\n{other[1]}\n{own[0]}\n{own[1]}\n")
    table.main(["--level", str(level), "--page", str(page), "--seeds", "0"])
    text = page.read_text()
    assert text.startswith(f"{other[0]}\nkept\n{other[1]}\n{own[0]}\n| block")
    assert text.count("| 75.0 | 75.0 |") == len(table.BLOCKS)
    [(data, parameters)] = made
    behind = "_level2" if level == 2 else ""
    assert (data, parameters.level) == (tmp_path / f"data/bookends{behind}", level)
    runs = tmp_path / f"work_dirs/reproduce_bookends{behind}"
    assert pretend[1][2] == runs / "polynl/seed_0"
    results = tmp_path / f"docs/results/bookends_level{level}.json"
    assert len(json.loads(results.read_text())) == len(table.BLOCKS)


def test_results_can_go_elsewhere(pretend, tmp_path):
    page, results = tmp_path / "page.md", tmp_path / "results.json"
    page.write_text(f"{START}\n{END}\n")
    options = ["--work-dir", str(tmp_path / "w"), "--seeds", "0"]
    table.main([*options, "--page", str(page), "--results", str(results)])
    assert json.loads(results.read_text())["PolyNL3d"]["runs"][0]["top1"] == 0.75


def test_page_has_the_numbers_of_its_results():
    results = json.loads((ROOT / "docs/results/bookends_level2.json").read_text())
    by_title = {title: block for block, title in table.BLOCKS.items()}
    runs = {by_title[title]: found["runs"] for title, found in results.items()}
    costs = {by_title[title]: found for title, found in results.items()}
    start, end = page_tables.marks("level 2")
    shown = table.PAGE.read_text().split(start)[1].split(end)[0].strip()
    assert shown == table.format_results(runs, costs)
    assert list(runs) == list(table.BLOCKS)
    assert {len(found) for found in runs.values()} == {3}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--blocks", "polynll"], "there is no 'polynll'; did you mean 'polynl'"),
        (["--page", "{}/no.md"], "no.md cannot be read: No such file"),
        (["--page", "{}/bare.md"], "bare.md needs the lines"),
    ],
)
def test_mistakes_are_said_before_training(
    pretend, tmp_path, capsys, options, sentence
):
    (tmp_path / "bare.md").touch()
    with pytest.raises(SystemExit):
        table.main([option.format(tmp_path) for option in options])
    assert sentence in capsys.readouterr().err and not pretend
