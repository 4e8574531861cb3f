"""The study on Nagoya FIR: its plan, its intervals, its page, and a small one run."""

import itertools
import json
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from polynl_mm.analysis.accuracy.dumped_results import DumpedResults
from polynl_mm.datasets.preparation.nagoya_fir import main as prepare
from polynl_mm.experiments import nagoya_fir as study
from polynl_mm.experiments import nagoya_fir_page as page
from polynl_mm.experiments.many_trainings import train_all
from polynl_mm.experiments.page_tables import marks
from polynl_mm.user_errors import UserError

ROOT = Path(__file__).parents[2]
PEOPLE = [f"p{number}" for number in range(1, 10)]
RESULTS = ROOT / "docs/results/nagoya_fir.json"
SHARED = ROOT.parent / "shared/nagoya_fir/sequences_int16_x320.npz"


def runs_of(accuracies, network="frame-wise", block=study.CONTROL, folds="nine"):
    """Make results: for each seed, of 100 clips of each person so many right."""
    about = dict(network=network, block=block, axes="time", folds=folds)
    return [
        dict(
            about=dict(about, fold=f"person{n}"),
            seed=seed,
            people={f"person{n}": [[right, 100 - right], [0, 0]]},
        )
        for seed, of_seed in enumerate(accuracies)
        for n, right in enumerate(of_seed)
    ]


def test_plan_names_each_training_once_and_its_config_exists():
    planned = list(study.plan(Path("d"), ["three", "nine"], [0, 1, 2], "PyramidNL3d"))
    names = [training.name for training in planned]
    assert len(set(names)) == len(names)
    for training in planned:
        assert (ROOT / training.config).is_file(), training.config
    three = [t for t in planned if t.about["folds"] == "three"]
    assert len(three) == 3 * (18 * 3 + 12)
    assert len(planned) - len(three) == 9 * 3 * (5 + 1 + 2)


def test_every_config_is_of_a_block():
    names = {path.name for path in (ROOT / "configs/nagoya_fir").glob("*.py")}
    planned = {
        Path(pattern.format(block)).name
        for pattern in study.NETWORKS.values()
        for block in study.BLOCKS.values()
    }
    assert names == planned


def test_options_choose_the_fold_and_the_axes():
    (training,) = [
        t
        for t in study.plan(Path("d"), ["three"], [0])
        if t.name == "frame-wise_polynl_spacetime_three2_seed0"
    ]
    assert training.options["train_dataloader.dataset.ann_file"] == "d/three2_train.txt"
    assert training.options["test_dataloader.dataset.ann_file"] == "d/three2_test.txt"
    assert training.options["model.backbone.plugins.0.cfg.axes"] == "spacetime"


def test_counts_confusions_by_person():
    names = ["a/20170203_p1_light1_190_1", "20170203_p1_light1_315_2", "x_p1_y"]
    whose = {name.split("/")[-1]: "person4" for name in names}
    whose["x_p1_y"] = "person7"
    scores = np.eye(3)[[0, 2, 1]]
    dump = DumpedResults("d.pkl", scores, np.array([0, 1, 1]), names)
    people = study.confusions_of_people(whose, dump)["people"]
    assert people["person4"] == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]
    assert people["person7"] == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]


def test_interval_is_that_of_all_ways_to_draw_people():
    ours, theirs = [90, 80, 70], [80, 79, 72]
    mean, low, high = page.difference(runs_of([ours]), runs_of([theirs]))
    gains = np.subtract(ours, theirs)
    draws = [np.mean(drawn) for drawn in itertools.product(gains, repeat=3)]
    expected = np.percentile(draws, [2.5, 97.5], method="inverted_cdf")
    assert mean == pytest.approx(3)
    assert [low, high] == pytest.approx(expected)


def test_interval_does_not_shrink_with_clips_or_seeds():
    one = page.difference(runs_of([[90, 70]]), runs_of([[80, 80]]))
    many = page.difference(runs_of([[90, 70]] * 3), runs_of([[80, 80]] * 3))
    assert one == many == pytest.approx((0, -10, 10))


def test_mean_and_spread_are_over_seeds():
    mean, spread = page.mean_and_spread(runs_of([[90, 70], [84, 80]]))
    assert (mean, spread) == pytest.approx((81, np.sqrt(2)))


def test_seeds_that_miss_people_are_left_out(monkeypatch):
    monkeypatch.setitem(page.FOLDS, "nine", ("person0", "person1"))
    runs = [*runs_of([[90, 70], [80, 60]]), *runs_of([[0]] * 3)[2:]]
    chosen = page.select(runs, "frame-wise", study.CONTROL)
    assert {run["seed"] for run in chosen} == {0, 1}


def test_best_other_is_not_one_of_the_nine(monkeypatch):
    monkeypatch.setitem(page.FOLDS, "three", ("person0",))
    runs, known = [], (*study.NINE["frame-wise"], *study.VARIANTS)
    for number, block in enumerate(study.BLOCKS):
        best = block == "PyramidNL3d" or block in known
        runs += runs_of([[90 if best else 50 + number]], block=block, folds="three")
    assert page.best_other(runs) == "PyramidNL3d"


def test_unknown_block_and_missing_data_are_named(tmp_path, capsys):
    for arguments, said in {
        ("--blocks", "PolyNL4d"): "there is no 'PolyNL4d'; did you mean",
        ("--jobs", "0"): "--jobs must be at least 1, not 0",
        ("--data", str(tmp_path)): "has no lists of Nagoya FIR",
    }.items():
        line = ["--work-dir", str(tmp_path / "w"), *arguments]
        line += [
            "--results",
            str(tmp_path / "r.json"),
            "--page",
            str(tmp_path / "p.md"),
        ]
        with pytest.raises(SystemExit):
            study.main([*line, "--seeds", "0", "--folds", "three"])
        assert said.lower() in capsys.readouterr().err.lower()


@pytest.mark.skipif(not RESULTS.is_file(), reason="the study has not been run")
def test_page_is_what_the_results_say():
    runs = json.loads(RESULTS.read_text())
    text = (ROOT / "docs/real_data.md").read_text()
    for name, table in {
        "nine": page.format_nine(runs),
        "three": page.format_three(runs),
        "cost": page.format_cost(runs),
    }.items():
        start, end = marks(name)
        assert f"{start}\n{table}\n{end}" in text, name
    for run in runs:
        clips = sum(np.sum(m) for m in run["people"].values())
        if run["about"]["folds"] == "nine":
            assert list(run["people"]) == [run["about"]["fold"]]
        assert clips == (840 if run["about"]["folds"] == "three" else 280)


@pytest.fixture
def people(tmp_path):
    """Prepare noise as if of nine people: two clips a class of each."""
    draw = np.random.default_rng(0)
    lines = {person: [] for person in PEOPLE}
    for person, label, take in itertools.product(PEOPLE, range(5), range(2)):
        name = f"20170203_{person}_light1_{take}_{label}"
        folder = tmp_path / "data/frames" / name
        folder.mkdir(parents=True)
        for number in range(1, 9):
            frame = draw.integers(120, 136, (16, 16), dtype=np.uint8)
            cv2.imwrite(str(folder / f"img_{number:05}.png"), frame)
        lines[person].append(f"{name} 8 {label}\n")
    for number in range(3):
        tested = PEOPLE[3 * number : 3 * number + 3]
        for part, kept in {"train": False, "test": True}.items():
            text = [x for p in PEOPLE if (p in tested) == kept for x in lines[p]]
            (tmp_path / f"data/three{number + 1}_{part}.txt").write_text("".join(text))
    (tmp_path / "data/person1_train.txt").write_text("")
    for number, person in enumerate(PEOPLE, 1):
        (tmp_path / f"data/person{number}_test.txt").write_text("".join(lines[person]))
    return tmp_path / "data"


def test_small_study_goes_on_where_it_stopped(people, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(study, "FOLDS", dict(study.FOLDS, three=("three1",)))
    line = ["--data", str(people), "--work-dir", str(tmp_path / "w"), "--jobs", "2"]
    line += ["--folds", "three", "--seeds", "0", "--page", str(tmp_path / "page.md")]
    line += ["--results", str(tmp_path / "r.json"), "--blocks", "no plugin", "PolyNL3d"]
    study.main(line)
    assert "3 results are in" in capsys.readouterr().out
    files = sorted((tmp_path / "w/results").glob("*.json"))
    assert [f.name.split("_")[1:3] for f in files] == [
        ["no-plugin", "time"],
        ["polynl", "spacetime"],
        ["polynl", "time"],
    ]
    result = json.loads(files[1].read_text())
    assert np.sum([np.sum(m) for m in result["people"].values()]) == 30
    assert result["about"]["axes"] == "spacetime" and result["cpu_seconds"] > 0
    assert not list((tmp_path / "w/runs").iterdir())
    study.main([*line, "--finished"])
    assert "3 results are in" in capsys.readouterr().out
    # One is lost, its data are damaged: the others stay, and it is named.
    files[0].unlink()
    (people / "three1_test.txt").write_text("no_such_folder 8 0\n")
    before = [f.stat().st_mtime_ns for f in files[1:]]
    with pytest.raises(SystemExit):
        study.main(line)
    assert "1 of 3 trainings failed" in capsys.readouterr().err
    assert [f.stat().st_mtime_ns for f in files[1:]] == before


@pytest.mark.skipif(not SHARED.is_file(), reason="the data set is not at hand")
def test_real_data_prepared_and_trained(tmp_path, monkeypatch):
    """All clips, all people; two epochs of one fold leave chance behind."""
    data = tmp_path / "nagoya_fir"
    prepare([str(SHARED), "--out", str(data)])
    folds = [
        (data / f"person{n}_test.txt").read_text().split("\n") for n in range(1, 10)
    ]
    clips = [line.split() for fold in folds for line in fold if line]
    assert len(clips) == 2520 and {len(fold) - 1 for fold in folds} == {280}
    labels = [int(label) for _, _, label in clips]
    assert [labels.count(n) for n in range(5)] == [360, 360, 360, 360, 1080]
    (training,) = [
        t
        for t in study.plan(data, ["nine"], [0])
        if t.name == "frame-wise_polynl-sine_time_person1_seed0"
    ]
    training.options.update({"train_cfg.max_epochs": 2, "param_scheduler.1.T_max": 2})
    sum_up = partial(study.confusions_of_people, study.people_of(data))
    (result,) = train_all([training], tmp_path / "w", 1, sum_up)
    assert list(result["people"]) == ["person1"]
    counts = page.confusions([result])
    assert counts.sum() == 280 and counts.trace() / 280 > 0.5


def test_page_has_places_and_pictures_are_drawn(tmp_path, monkeypatch):
    runs = []
    for network, blocks in study.NINE.items():
        for block in blocks:
            runs += runs_of([[80, 90, 70] * 3], network, block)
    for block in study.BLOCKS:
        runs += runs_of([[80, 60, 70]], block=block, folds="three")
    for run in runs:
        run.update(cpu_seconds=1800, torch="2.13.0")
    target = tmp_path / "page.md"
    places = ["\n".join(marks(name)) for name in ("nine", "three", "cost")]
    target.write_text("\n".join(places[:2]))
    with pytest.raises(UserError, match="cost"):
        page.write_page(runs, target)
    target.write_text("\n".join(places))
    page.write_page(runs, target)
    text = target.read_text()
    assert "| temporal | PolyNL3d, positions | 1 | 80.0 |" in text
    assert f"{len(runs)} trainings took {len(runs) / 2:.1f} hours" in text
    for name in ("gains", "confusions"):
        assert (tmp_path / f"images/real_data_{name}.png").stat().st_size > 5000
