"""The tools that look at dumped predictions and logs, as a user runs them."""

import csv
import json

import numpy as np
import pytest
from dumps import write_dump
from mmengine_scalars import SCALARS
from PIL import Image

from polynl_mm.analysis.accuracy.dumped_results import read_results


@pytest.fixture
def dump(tmp_path):
    """Predictions of 60 videos of three classes, most of them right."""
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=60).tolist()
    scores = rng.random((60, 3)) + 0.5 * np.eye(3)[labels]
    names = [f"videos/{number}.mp4" for number in range(60)]
    return write_dump(tmp_path / "scores.pkl", scores.tolist(), labels, names)


@pytest.fixture
def labels(tmp_path):
    (tmp_path / "labels.txt").write_text("juggling\nrowing a boat\narchery\n")
    return tmp_path / "labels.txt"


@pytest.fixture
def refused(capsys):
    """Return a function that runs a tool and gives the one sentence it ends with."""

    def run(main, *argv):
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in argv])
        assert left.value.code == 2
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert said.startswith("Error: ")
        return said

    return run


def test_confusion_matrix(tool, dump, labels, tmp_path, capsys):
    picture, counts = tmp_path / "m.png", tmp_path / "m.json"
    main = tool("analysis_tools/confusion_matrix").main
    main(
        [
            str(dump),
            "--labels",
            str(labels),
            "--out",
            str(picture),
            "--json",
            str(counts),
        ]
    )
    said = capsys.readouterr().out
    results = read_results(dump)
    right = (results.predictions == results.labels).mean()
    assert f"60 samples: top-1 {100 * right:.2f} %, mean class accuracy" in said
    assert "rowing a boat -> " in said
    written = json.loads(counts.read_text())
    assert written["classes"] == ["juggling", "rowing a boat", "archery"]
    assert np.trace(written["matrix"]) == round(60 * right)
    assert (
        np.sum(written["matrix"], axis=1).tolist()
        == np.bincount(results.labels).tolist()
    )
    with Image.open(picture) as image:
        assert min(image.size) > 400
    two = tmp_path / "two.svg"
    main([str(dump), "--target-classes", "2", "0", "--out", str(two)])
    assert "<svg" in two.read_text()


def test_confusion_matrix_of_four_hundred_classes(tool, tmp_path):
    scores = np.eye(400)[np.arange(400)[::-1]]
    dump = write_dump(tmp_path / "k.pkl", scores.tolist(), list(range(400)))
    picture = tmp_path / "k.png"
    main = tool("analysis_tools/confusion_matrix").main
    main([str(dump), "--out", str(picture), "--cmap", "gray", "--normalize", "none"])
    pixels = np.asarray(Image.open(picture).convert("L")).astype(int)
    assert pixels.shape[0] > 1200
    # The matrix is black, but for its other diagonal: of each of its cells there is
    # something to see.
    dark = (pixels < 10).sum(axis=0)
    columns = np.flatnonzero(dark > 0.5 * dark.max())
    rows = np.flatnonzero((pixels < 10).sum(axis=1) > 0.5 * dark.max())
    inside = pixels[rows.min() : rows.max(), columns.min() : columns.max()]
    inside = inside[4:-4, 4:-4]
    lit = inside > 200
    assert lit.any(axis=0).mean() > 0.95 and lit.any(axis=1).mean() > 0.95
    assert lit.mean() < 0.02


def test_title_and_pairs_of_the_confusion_matrix(tool, dump, labels, tmp_path, capsys):
    main, picture = tool("analysis_tools/confusion_matrix").main, tmp_path / "m.svg"
    options = ["--label-file", str(labels), "--out", str(picture)]
    main([str(dump), *options, "--title", "Three classes", "--most-confused", "2"])
    # matplotlib writes every text into a comment.
    assert "<!-- Three classes -->" in picture.read_text()
    assert "<!-- rowing a boat -->" in picture.read_text()
    pairs = [line for line in capsys.readouterr().out.splitlines() if " -> " in line]
    assert len(pairs) == 2
    main([str(dump), *options, "--most-confused", "0"])
    assert "<!-- Three classes -->" not in picture.read_text()
    said = capsys.readouterr().out
    assert " -> " not in said and "Most confused" not in said


def test_per_class_accuracy(tool, dump, labels, tmp_path, capsys):
    main = tool("analysis_tools/per_class_accuracy").main
    main(
        [
            str(dump),
            "--labels",
            str(labels),
            "--worst",
            "2",
            "--out",
            str(tmp_path / "c.csv"),
        ]
    )
    said = capsys.readouterr().out.splitlines()
    with open(tmp_path / "c.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    shares = [float(row["accuracy"]) for row in rows]
    assert len(rows) == 3 and shares == sorted(shares)
    assert [line for line in said if " / " in line][1].split()[0] == f"{shares[0]:.1%}"
    assert sum(" / " in line for line in said[2:]) == 2
    main([str(dump), "--out", str(tmp_path / "c.json")])
    written = json.loads((tmp_path / "c.json").read_text())
    assert written["mean1"] == pytest.approx(np.mean(shares))
    assert [row["name"] for row in written["classes"]] != [row["name"] for row in rows]


def test_names_of_classes(tool, dump, labels, capsys):
    main = tool("analysis_tools/per_class_accuracy").main
    names = labels.read_text().splitlines()
    for options, shown in ([], False), (["--label-file", str(labels)], True):
        main([str(dump), *options])
        said = capsys.readouterr().out
        assert [name in said for name in names] == [shown] * 3


def test_scores_are_turned_into_probabilities(tool, tmp_path, capsys):
    """Of logits of another scale, one test outvotes the other."""
    loud = write_dump(tmp_path / "loud.pkl", [[90.0, 0.0], [0.0, 90.0]], [1, 1])
    quiet = write_dump(tmp_path / "quiet.pkl", [[0.0, 9.0], [0.0, 9.0]], [1, 1])
    main, fused = tool("analysis_tools/report_accuracy").main, tmp_path / "f.pkl"
    options = ["--preds", str(loud), str(quiet), "--dump", str(fused)]
    options += ["--coefficients", "1", "2", "--metrics", str(tmp_path / "m.json")]
    main(options)
    metrics = json.loads((tmp_path / "m.json").read_text())
    tops = {name: accuracies["top1"] for name, accuracies in metrics.items()}
    assert tops == {str(loud): 0.5, str(quiet): 1.0, "fused": 0.5}
    np.testing.assert_allclose(read_results(fused).scores, [[90, 18], [0, 108]])
    assert "fused, 2 samples: top-1 50.00 %" in capsys.readouterr().out
    main([*options, "--apply-softmax"])
    np.testing.assert_allclose(read_results(fused).scores, [[1, 2], [0, 3]], atol=1e-3)
    assert "fused, 2 samples: top-1 100.00 %" in capsys.readouterr().out


def test_fused_scores_can_be_read_again(tool, dump, tmp_path, capsys):
    fused = tmp_path / "fused.pkl"
    main = tool("analysis_tools/report_accuracy").main
    main(
        [
            "--preds",
            str(dump),
            str(dump),
            "--coefficients",
            "1",
            "3",
            "--dump",
            str(fused),
        ]
    )
    said = capsys.readouterr().out
    assert "(weight 3): top-1" in said and "fused, 60 samples: top-1" in said
    once, again = read_results(dump), read_results(fused)
    np.testing.assert_allclose(again.scores, 4 * once.scores, rtol=1e-6)
    assert again.names == once.names


def test_curves_and_times(tool, tmp_path, capsys):
    folder = tmp_path / "run/20260101_000000/vis_data"
    folder.mkdir(parents=True)
    lines = [json.dumps(record) for record in SCALARS]
    (folder / "scalars.json").write_text("\n".join(lines) + "\n")
    main, run = tool("analysis_tools/analyze_logs").main, str(tmp_path / "run")
    main(
        ["plot_curve", run, run, "--legend", "a", "b", "--out", str(tmp_path / "c.png")]
    )
    assert "curves of loss, acc/top1 are in" in capsys.readouterr().out
    assert (tmp_path / "c.png").stat().st_size > 10_000
    picture = tmp_path / "c.svg"
    options = ["--keys", "time", "--over", "iter", "--title", "Two epochs"]
    main(["plot_curve", run, *options, "--out", str(picture)])
    assert "The curves of time are in" in capsys.readouterr().out
    texts = picture.read_text()  # matplotlib writes every text into a comment
    assert "<!-- Two epochs -->" in texts and "<!-- iteration -->" in texts
    assert "<!-- time -->" in texts and "<!-- loss -->" not in texts
    main(["cal_train_time", run])
    assert "1.3750 s for an iteration" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["plot_curve", run, "--legend", "a", "b"])
    assert "--legend gives 2 names for 1 trainings" in capsys.readouterr().err


def test_mistakes(tool, dump, labels, refused, tmp_path):
    matrix = tool("analysis_tools/confusion_matrix").main
    assert "did you mean 'viridis'" in refused(matrix, dump, "--cmap", "viridus")
    assert ".png, .pdf or .svg" in refused(matrix, dump, "--out", "a.txt")
    said = refused(matrix, dump, "--most-confused", "-1")
    assert "--most-confused is a whole number from 0, not -1" in said
    assert "classes 0 to 2" in refused(matrix, dump, "--target-classes", "0", "3")
    labels.write_text("one\ntwo\n")
    assert "names 2" in refused(matrix, dump, "--labels", labels)
    table = tool("analysis_tools/per_class_accuracy").main
    assert ".csv or .json" in refused(table, dump, "--out", "a.txt")
    fusion = tool("analysis_tools/report_accuracy").main
    said = refused(fusion, "--preds", dump, dump, "--coefficients", "1")
    assert "gives 2 files, --coefficients 1 weights" in said
    curves = tool("analysis_tools/analyze_logs").main
    assert "does not exist" in refused(curves, "plot_curve", tmp_path / "no")
