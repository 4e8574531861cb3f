"""A picture of a confusion matrix, readable for two classes and for four hundred."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from polynl_mm.atomic_files import renamed_when_complete
from polynl_mm.stack.literal_texts import literal_texts

# Up to so many classes, a cell has room for its number, and an axis for all names.
MOST_NUMBERS = 24
MOST_NAMES = 120
NAME_LENGTH = 32


def row_shares(matrix: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Return each row of a confusion matrix as shares of its class.

    Args:
        matrix (np.ndarray): (classes, classes), counts.
        samples (np.ndarray): (classes,), how many samples each class has; more than
            its row's sum where the matrix shows some of the classes only.

    Returns:
        np.ndarray: Rows that sum to at most 1; of classes without samples, nan.
    """
    samples = samples[:, None]
    shares = np.full(matrix.shape, np.nan)
    return np.divide(matrix, samples, out=shares, where=samples > 0)


@literal_texts()
def draw_confusions(
    matrix: np.ndarray,
    names: Sequence[str],
    path: str | Path,
    samples: np.ndarray,
    normalize: bool = True,
    title: str | None = None,
    cmap: str = "viridis",
) -> None:
    """Draw a confusion matrix.

    Args:
        matrix (np.ndarray): (classes, classes), counts; rows are the true classes.
        names (Sequence[str]): The names of the classes.
        path (str | Path): The picture to write; its suffix says the format, such as
            ``.png`` or ``.pdf``.
        samples (np.ndarray): (classes,), as for :func:`row_shares`.
        normalize (bool): Show the share of each class's samples, not their number.
        title (str | None): What to write above it.
        cmap (str): A colour map of matplotlib.
    """
    classes = len(names)
    values = row_shares(matrix, samples) if normalize else matrix.astype(float)
    named = classes <= MOST_NAMES
    labels = [_shortened(name) for name in names]
    size, font = _layout(classes, max(map(len, labels)) if named else 4)
    # Not pyplot: it would set the process's backend, and looks for a display.
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = axes.imshow(
        values,
        cmap=colormaps[cmap].with_extremes(bad="lightgray"),
        # Confusions are a few per cent: among many classes, nothing on a linear scale.
        norm=PowerNorm(
            gamma=1 if classes <= MOST_NUMBERS else 0.5,
            vmin=0,
            vmax=1 if normalize else max(1, matrix.max()),
        ),
        # Four hundred cells have about three pixels each: none may vanish.
        interpolation="nearest",
    )
    if named:
        numbers = range(classes)
        axes.set_xticks(numbers, labels, fontsize=font, rotation=90, ha="center")
        axes.set_yticks(numbers, labels, fontsize=font)
        if max(map(len, labels)) <= 3:
            axes.tick_params(axis="x", rotation=0)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(20, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(20, integer=True))
    kind = "" if named else " (number)"
    axes.set_xlabel(f"predicted class{kind}")
    axes.set_ylabel(f"true class{kind}")
    axes.set_title(title or "")
    if classes <= MOST_NUMBERS:
        _write_numbers(axes, matrix, values, font, normalize)
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.02)
    bar.set_label("share of the true class" if normalize else "samples")
    with renamed_when_complete(path) as partial:
        # The layout of square axes may cut their labels off.
        figure.savefig(partial, bbox_inches="tight")


def _layout(classes: int, longest: int) -> tuple[tuple[float, float], float]:
    """Return a figure's size in inches, and the size of its letters in points."""
    if classes > MOST_NAMES:
        return (13, 12), 9
    font = 9 if classes <= MOST_NUMBERS else 7
    cell = max(0.5 if classes <= MOST_NUMBERS else 0.13, font * 1.25 / 72)
    matrix = max(2.5, cell * classes)
    margin = 0.9 + longest * font * 0.6 / 72
    return (matrix + margin + 1.0, matrix + margin + 0.4), font


def _write_numbers(axes, matrix, values, font: float, normalize: bool) -> None:
    brightest = 1 if normalize else max(1, matrix.max())
    for (row, column), value in np.ndenumerate(values):
        if np.isnan(value):
            continue
        text = f"{100 * value:.0f}%" if normalize else str(int(value))
        axes.text(
            column,
            row,
            text,
            ha="center",
            va="center",
            fontsize=font - 1,
            color="black" if value > 0.6 * brightest else "white",
        )


def _shortened(name: str) -> str:
    return name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1] + "…"
