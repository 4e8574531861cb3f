import numpy as np
import pytest
from dumps import write_dump

from polynl_mm.analysis.accuracy.accuracies import (
    class_accuracies,
    class_names,
    count_confusions,
    format_accuracies,
    fuse,
    most_confused,
    overall_accuracies,
)
from polynl_mm.analysis.accuracy.dumped_results import DumpedResults, read_results
from polynl_mm.user_errors import UserError


def results_of(predictions, labels, classes):
    return DumpedResults("a.pkl", np.eye(classes)[predictions], np.asarray(labels))


# Class 0: 2 of 3 right, one taken for 1. Class 1: right. Class 2: both taken for 0.
# Class 3 has no samples and is predicted once; class 4 neither.
RESULTS = results_of([0, 0, 1, 1, 0, 3], [0, 0, 0, 1, 2, 2], classes=5)


def test_confusions():
    matrix = count_confusions(RESULTS)
    assert matrix.tolist() == [
        [2, 1, 0, 0, 0],
        [0, 1, 0, 0, 0],
        [1, 0, 0, 1, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ]
    pairs = most_confused(matrix, "abcde", 2, matrix.sum(axis=1))
    assert pairs == [("a", "b", 1, 1 / 3), ("c", "a", 1, 1 / 2)]
    assert len(most_confused(matrix, "abcde", 50, matrix.sum(axis=1))) == 3


def test_the_worst_classes_come_first():
    rows = class_accuracies(RESULTS, list("abcde"))
    assert [(row.name, row.samples, row.correct) for row in rows] == [
        ("c", 2, 0),
        ("a", 3, 2),
        ("b", 1, 1),
        ("d", 0, 0),
        ("e", 0, 0),
    ]
    assert [row.accuracy for row in rows] == [0, pytest.approx(2 / 3), 1, None, None]
    assert [row.taken_for for row in rows] == ["a", "b", "", "", ""]
    assert [row.predicted for row in rows] == [0, 3, 2, 1, 0]


def test_accuracies_are_those_of_the_test_tool():
    from mmaction.evaluation import AccMetric

    rng = np.random.default_rng(0)
    scores, labels = rng.random((40, 8)), rng.integers(8, size=40)
    results = DumpedResults("a.pkl", scores, labels)
    assert overall_accuracies(results) == pytest.approx(
        dict(AccMetric().calculate(list(scores), labels.tolist()))
    )
    assert set(overall_accuracies(RESULTS)) == {"top1", "mean1"}  # 5 of 5 is no top-5
    assert format_accuracies(dict(top1=0.5, mean1=0.25)) == (
        "top-1 50.00 %, mean class accuracy 25.00 %"
    )


def test_fusing(tmp_path):
    a = [[0.6, 0.4], [0.9, 0.1], [0.4, 0.6]]
    b = [[0.3, 0.7], [0.4, 0.6], [0.1, 0.9]]
    paths = [
        write_dump(tmp_path / "a.pkl", a, [1, 0, 1], names=["v/a", "v/b", "v/c"]),
        write_dump(tmp_path / "b.pkl", b[::-1], [1, 0, 1], names=["v/c", "v/b", "v/a"]),
    ]
    dumps = [read_results(path) for path in paths]
    assert [overall_accuracies(dump)["top1"] for dump in dumps] == [2 / 3, 2 / 3]
    fused = fuse(dumps, [1, 2])
    np.testing.assert_allclose(fused.scores, np.add(a, np.multiply(2, b)), rtol=1e-6)
    assert overall_accuracies(fused)["top1"] == 1.0
    assert overall_accuracies(fuse(dumps, [1, 0]))["top1"] == 2 / 3
    for weights in ([0, 0], [np.nan, 1], [1, -np.inf]):
        with pytest.raises(UserError, match="are finite numbers, not all 0"):
            fuse(dumps, weights)
    for weights in ([1e308, 1e308], [1e200, 1]):
        with pytest.raises(UserError, match="give smaller ones"):
            fuse(dumps, weights)
    with pytest.raises(UserError, match="2 results need 2 weights, not 3"):
        fuse(dumps, [1, 2, 3])


def test_fusing_scores_that_are_not_probabilities():
    # Without softmax the large scale of the first would decide.
    a = DumpedResults("a", np.array([[30.0, 29.9]]), np.array([1]))
    b = DumpedResults("b", np.array([[0.0, 1.0]]), np.array([1]))
    fused = fuse([a, b], [100, 100], apply_softmax=True)
    np.testing.assert_allclose(fused.scores.sum(), 200, rtol=1e-6)
    assert fused.predictions.tolist() == [1]
    assert fuse([a, b], [100, 1]).predictions.tolist() == [0]


def test_names_of_classes():
    assert class_names(2, None) == ["0", "1"]
    with pytest.raises(UserError, match=r"scores of 3 classes, but .* names 2"):
        class_names(3, ["a", "b"])
