"""Accuracies of dumped predictions: top-k, mean class accuracy, class by class."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from polynl_mm.analysis.accuracy.dumped_results import DumpedResults, match_samples
from polynl_mm.user_errors import UserError

TOP_K = (1, 5)


@dataclass
class ClassAccuracy:
    """How well one class is recognised.

    Attributes:
        label (int): The class.
        name (str): Its name, or its number as text.
        samples (int): How many samples are of it.
        correct (int): Of how many of them it has the highest score.
        accuracy (float | None): Their share; None without samples.
        predicted (int): For how many samples of any class it has the highest score.
        taken_for (str): The class that its other samples are mostly taken for.
    """

    label: int
    name: str
    samples: int
    correct: int
    accuracy: float | None
    predicted: int
    taken_for: str = ""


def overall_accuracies(results: DumpedResults) -> dict[str, float]:
    """Return the accuracies that ``tools/test.py`` reports, under their names.

    Args:
        results (DumpedResults): Scores and labels.

    Returns:
        dict[str, float]: ``top1``, ``top5`` where there are more than five classes,
        and ``mean1``, the mean class accuracy, from 0 to 1.
    """
    from mmaction.evaluation import mean_class_accuracy, top_k_accuracy

    ks = [k for k in TOP_K if k < results.num_classes]
    top = top_k_accuracy(results.scores, results.labels, ks)
    found = {f"top{k}": float(value) for k, value in zip(ks, top, strict=True)}
    found["mean1"] = float(mean_class_accuracy(results.scores, results.labels))
    return found


def format_accuracies(accuracies: dict[str, float]) -> str:
    """Lay accuracies out on a line.

    Args:
        accuracies (dict[str, float]): From :func:`overall_accuracies`.

    Returns:
        str: Such as ``top-1 74.50 %, top-5 91.20 %, mean class accuracy 74.49 %``.
    """
    titles = {"top1": "top-1", "top5": "top-5", "mean1": "mean class accuracy"}
    return ", ".join(f"{titles[k]} {100 * v:.2f} %" for k, v in accuracies.items())


def count_confusions(results: DumpedResults) -> np.ndarray:
    """Count how often each class is taken for each.

    Args:
        results (DumpedResults): Scores and labels.

    Returns:
        np.ndarray: (classes, classes), whole numbers; rows are the true classes.
    """
    # MMAction2's function leaves out classes that do not occur.
    classes = results.num_classes
    cells = results.labels * classes + results.predictions
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def class_accuracies(
    results: DumpedResults, names: Sequence[str] | None = None
) -> list[ClassAccuracy]:
    """Return how well each class is recognised, the worst first.

    Args:
        results (DumpedResults): Scores and labels.
        names (Sequence[str] | None): The names of the classes.

    Returns:
        list[ClassAccuracy]: By accuracy, then by the number of samples, the larger
        first; classes without samples stand last.
    """
    names = class_names(results.num_classes, names)
    matrix = count_confusions(results)
    rows = []
    for label, counts in enumerate(matrix):
        wrong = counts.copy()
        wrong[label] = 0
        samples = int(counts.sum())
        rows.append(
            ClassAccuracy(
                label=label,
                name=names[label],
                samples=samples,
                correct=int(counts[label]),
                accuracy=float(counts[label] / samples) if samples else None,
                predicted=int(matrix[:, label].sum()),
                taken_for=names[wrong.argmax()] if wrong.any() else "",
            )
        )
    return sorted(
        rows, key=lambda row: (row.accuracy is None, row.accuracy, -row.samples)
    )


def class_records(rows: Sequence[ClassAccuracy]) -> list[dict]:
    """Return the rows of a table as plain values, for JSON or CSV.

    Args:
        rows (Sequence[ClassAccuracy]): From :func:`class_accuracies`.

    Returns:
        list[dict]: One for each class.
    """
    return [asdict(row) for row in rows]


def most_confused(
    matrix: np.ndarray, names: Sequence[str], count: int, samples: np.ndarray
) -> list[tuple[str, str, int, float]]:
    """Return the pairs of classes that are confused most often.

    Args:
        matrix (np.ndarray): From :func:`count_confusions`.
        names (Sequence[str]): The names of the classes.
        count (int): How many pairs at most.
        samples (np.ndarray): (classes,), how many samples each class has.

    Returns:
        list[tuple[str, str, int, float]]: True class, predicted class, how often, and
        the share of the true class's samples; the most frequent first.
    """
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    pairs = []
    for true, predicted in zip(*np.unravel_index(order, wrong.shape), strict=True):
        times = int(wrong[true, predicted])
        if times:
            share = times / int(samples[true])
            pairs.append((names[true], names[predicted], times, share))
    return pairs


def class_names(num_classes: int, names: Sequence[str] | None) -> list[str]:
    """Return a name for each class.

    Args:
        num_classes (int): How many there are.
        names (Sequence[str] | None): Their names; by default their numbers.

    Returns:
        list[str]: As many names.

    Raises:
        UserError: If there are more or fewer names than classes.
    """
    if names is None:
        return [str(label) for label in range(num_classes)]
    if len(names) != num_classes:
        raise UserError(
            f"The results have scores of {num_classes} classes, but the file of labels "
            f"names {len(names)}; one name on each line is needed."
        )
    return list(names)


def fuse(
    dumps: Sequence[DumpedResults],
    weights: Sequence[float] | None = None,
    apply_softmax: bool = False,
) -> DumpedResults:
    """Add the scores of several tests of the same samples.

    Args:
        dumps (Sequence[DumpedResults]): The tests.
        weights (Sequence[float] | None): One for each; by default 1.
        apply_softmax (bool): Turn scores into probabilities first.

    Returns:
        DumpedResults: The weighted sums, in the order of the first.

    Raises:
        UserError: If the tests are of other samples or classes, a weight is missing or
            no finite number, or all are 0.
    """
    from mmaction.evaluation import get_weighted_score

    weights = [1.0] * len(dumps) if weights is None else list(weights)
    if len(weights) != len(dumps):
        raise UserError(
            f"{len(dumps)} results need {len(dumps)} weights, not {len(weights)}."
        )
    if not np.isfinite(weights).all() or not any(weights):
        raise UserError(
            f"The coefficients are finite numbers, not all 0, and not {weights}."
        )
    matched = match_samples(dumps)
    scores = [each.scores for each in matched]
    if apply_softmax:
        scores = [torch.from_numpy(each).softmax(dim=1).numpy() for each in scores]
    with np.errstate(over="ignore", invalid="ignore"):  # said below
        fused = np.stack(get_weighted_score(scores, weights))
        fits = np.isfinite(fused.astype(np.float32)).all()  # as it is written
    if not fits:
        raise UserError(
            f"The coefficients {weights} give scores that are no finite numbers; give "
            "smaller ones."
        )
    first = matched[0]
    return DumpedResults("the fused scores", fused, first.labels, first.names)
