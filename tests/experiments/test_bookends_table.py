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


def test_blocks_seeds_and_page(pretend, tmp_path):
    page, work = tmp_path / "page.md", tmp_path / "w"
    page.write_text(f"before\n{START}\n{END}\n")
    results = tmp_path / "results.json"
    options = ["--work-dir", str(work), "--page", str(page), "--results", str(results)]
    # Twice the same is once.
    options += ["--blocks", "no_plugin", "polynl", "polynl", "--seeds", "4", "7", "4"]
    table.main(options)
    assert pretend == [
        (table.PATTERN.format(block), seed, work / name / f"seed_{seed}")
        for seed in (4, 7)
        for block, name in (("", "no_plugin"), ("-polynl", "polynl"))
    ]
    rows = page.read_text().splitlines()[4:-1]
    assert [row.split(" | ")[:3] for row in rows] == [
        ["| no plugin", "2", "75.0 ± 0.0"],
        ["| PolyNL3d", "2", "75.0 ± 0.0"],
    ]
    assert page.read_text().startswith(f"before\n{START}\n| block")


def test_level_has_data_folder_and_table_of_its_own(pretend, tmp_path, monkeypatch):
    made, page = [], tmp_path / "page.md"
    monkeypatch.setattr(
        table, "generate_bookends", lambda *args, **_: made.append(args)
    )
    monkeypatch.setattr(table, "ROOT", tmp_path)
    marks = page_tables.marks("level 2")
    page.write_text(f"{START}\nkept\n{END}\n{marks[0]}\n{marks[1]}\n")
    options = ["--level", "2", "--page", str(page), "--seeds", "0"]
    (tmp_path / "docs/results").mkdir(parents=True)
    table.main([*options, "--blocks", "polynl"])
    assert page.read_text().startswith(f"{START}\nkept\n{END}\n{marks[0]}\n| block")
    [(data, parameters)] = made
    assert (data, parameters.level) == (tmp_path / "data/bookends_level2", 2)
    assert table.SIZES[1] == FULL
    [(_, _, run)] = pretend
    assert (tmp_path / "docs/results/bookends_level2.json").is_file()
    assert run == tmp_path / "work_dirs/reproduce_bookends_level2/polynl/seed_0"


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
