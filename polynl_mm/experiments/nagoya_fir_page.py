"""What docs/real_data.md says of the study: tables and pictures, from its results."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from polynl_mm.analysis.colours import FLOOR, REST, colour_of
from polynl_mm.atomic_files import renamed_when_complete
from polynl_mm.experiments.nagoya_fir import (
    BLOCKS,
    CONTROL,
    FOLDS,
    NINE,
    NO_PLUGIN,
    VARIANTS,
)
from polynl_mm.experiments.page_tables import check_page, write_table
from polynl_mm.stack.literal_texts import literal_texts

CLASSES = ("walk", "sit down", "stand up", "fall", "stop")
RESAMPLES = 10_000
# (network, block): where the confusions are shown.
SHOWN = (
    ("frame-wise", NO_PLUGIN),
    ("frame-wise", "PolyNL3d"),
    ("frame-wise", "PolyNL3d, positions"),
    ("temporal", "PolyNL3d, positions"),
)
Runs = Sequence[Mapping]


def select(
    runs: Runs, network: str, block: str, axes: str = "time", folds: str = "nine"
) -> list[Mapping]:
    """Return the results of one cell of the tables.

    Args:
        runs (Sequence[Mapping]): Results of the study.
        network (str): ``'frame-wise'`` or ``'temporal'``.
        block (str): A title.
        axes (str): What the block looked over.
        folds (str): ``'three'`` or ``'nine'``.

    Returns:
        list[Mapping]: One for each fold and seed, of the seeds that have all folds.
    """
    wanted = dict(network=network, block=block, axes=axes, folds=folds)
    found = [r for r in runs if wanted.items() <= r["about"].items()]
    made = Counter(run["seed"] for run in found)
    return [run for run in found if made[run["seed"]] == len(FOLDS[folds])]


def confusions(runs: Runs) -> np.ndarray:
    """Return the counts of all runs together, (classes, classes)."""
    return sum(np.array(m) for run in runs for m in run["people"].values())


def accuracies(runs: Runs) -> dict[int, dict[str, float]]:
    """Return the accuracy on each person, by seed.

    Args:
        runs (Sequence[Mapping]): Results of one cell.

    Returns:
        dict[int, dict[str, float]]: By seed and person, in per cent.
    """
    found: dict[int, dict[str, float]] = {}
    for run in runs:
        of_seed = found.setdefault(run["seed"], {})
        for person, counts in run["people"].items():
            matrix = np.array(counts)
            of_seed[person] = 100 * matrix.trace() / matrix.sum()
    return found


def mean_and_spread(runs: Runs) -> tuple[float, float]:
    """Return the mean over clips and seeds, and the standard deviation over seeds."""
    seeds = [
        _percent(confusions([run for run in runs if run["seed"] == seed]))
        for seed in sorted({run["seed"] for run in runs})
    ]
    return float(np.mean(seeds)), float(np.std(seeds, ddof=1)) if seeds[1:] else 0.0


def difference(runs: Runs, control: Runs) -> tuple[float, float, float]:
    """Return what a block adds to another, with an interval over people.

    Clips of one person are not independent; people are. So people are drawn again,
    with replacement, and with each come all of the clips.

    Args:
        runs (Sequence[Mapping]): Results of one cell.
        control (Sequence[Mapping]): Of the one it is compared to.

    Returns:
        tuple[float, float, float]: The mean difference in percentage points, paired by
        person, and the 2.5th and 97.5th percentile of its bootstrap distribution.
    """
    ours, theirs = _by_person(runs), _by_person(control)
    gains = np.array([ours[person] - theirs[person] for person in sorted(ours)])
    draws = np.random.default_rng(0).integers(len(gains), size=(RESAMPLES, len(gains)))
    low, high = np.percentile(gains[draws].mean(axis=1), [2.5, 97.5])
    return float(gains.mean()), float(low), float(high)


def difference_by_fold(runs: Runs, control: Runs) -> tuple[float, float, float]:
    """Return what a block adds to another, and the least and most of a fold.

    Three folds are too few for an interval.

    Args:
        runs (Sequence[Mapping]): Results of one cell.
        control (Sequence[Mapping]): Of the one it is compared to.

    Returns:
        tuple[float, float, float]: In percentage points.
    """
    ours, theirs = _by_fold(runs), _by_fold(control)
    gains = [ours[fold] - theirs[fold] for fold in sorted(ours)]
    return float(np.mean(gains)), min(gains), max(gains)


def _by_fold(runs: Runs) -> dict[str, float]:
    by_fold: dict[str, list[Mapping]] = {}
    for run in runs:
        by_fold.setdefault(run["about"]["fold"], []).append(run)
    return {fold: _percent(confusions(found)) for fold, found in by_fold.items()}


def _by_person(runs: Runs) -> dict[str, float]:
    by_seed = list(accuracies(runs).values())
    return {p: float(np.mean([seed[p] for seed in by_seed])) for p in by_seed[0]}


def best_other(runs: Runs) -> str:
    """Return the block that did best on three folds, of those not yet in the nine.

    Args:
        runs (Sequence[Mapping]): Results that hold the three folds.

    Returns:
        str: Its title.
    """
    known = (*NINE["frame-wise"], *VARIANTS)
    others = [title for title in BLOCKS if title not in known]
    cells = {t: select(runs, "frame-wise", t, folds="three") for t in others}
    return max(cells, key=lambda title: mean_and_spread(cells[title])[0])


def format_nine(runs: Runs) -> str:
    """Lay the nine folds out as a Markdown table.

    Args:
        runs (Sequence[Mapping]): Results of the study.

    Returns:
        str: A row for each network and block.
    """
    lines = [
        "| network | block | seeds | top-1, % | over no plugin | over the control |",
        "|---|---|---|---|---|---|",
    ]
    for network in NINE:
        for title in BLOCKS:
            cell = select(runs, network, title)
            if cell:
                gains = [
                    _gain(cell, select(runs, network, other)) if title != other else ""
                    for other in (NO_PLUGIN, CONTROL)
                ]
                seeds = str(len(accuracies(cell)))
                row = [network, title, seeds, _score(cell), *gains]
                lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def format_three(runs: Runs) -> str:
    """Lay the three folds out as a Markdown table.

    Args:
        runs (Sequence[Mapping]): Results of the study.

    Returns:
        str: A row for each block.
    """
    lines = [
        "| block | seeds | over time, % | over the control | over space and time, % |",
        "|---|---|---|---|---|",
    ]
    control = select(runs, "frame-wise", CONTROL, folds="three")
    for title in BLOCKS:
        cell = select(runs, "frame-wise", title, folds="three")
        if not cell:
            continue
        wide = select(runs, "frame-wise", title, "spacetime", "three")
        row = [
            title,
            str(len(accuracies(cell))),
            _score(cell),
            _gain(cell, control, difference_by_fold) if title != CONTROL else "",
            _score(wide) if wide else "",
        ]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def _score(runs: Runs) -> str:
    mean, spread = mean_and_spread(runs)
    return f"{mean:.1f} ± {spread:.1f}" if len(accuracies(runs)) > 1 else f"{mean:.1f}"


def _gain(runs: Runs, control: Runs, compare=difference) -> str:
    if not control:
        return ""
    mean, low, high = compare(runs, control)
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"


def format_cost(runs: Runs) -> str:
    """Say in a sentence how long the study took, and on what."""
    hours = Counter()
    for run in runs:
        hours[run["seed"]] += run["cpu_seconds"] / 3600
    versions = ", ".join(sorted({run["torch"] for run in runs}))
    each = ", ".join(f"{of_seed:.1f}" for _, of_seed in sorted(hours.items()))
    return (
        f"{len(runs)} trainings took {hours.total():.1f} hours of one core (torch "
        f"{versions}), by seed: {each}."
    )


def write_page(runs: Runs, page: Path) -> None:
    """Write the tables and the pictures of the page.

    Args:
        runs (Sequence[Mapping]): Results of the study.
        page (Path): docs/real_data.md; the pictures go to ``images`` beside it.

    Raises:
        UserError: If the page has no places for the tables.
    """
    tables = {
        "nine": format_nine(runs),
        "three": format_three(runs),
        "cost": format_cost(runs),
    }
    for name in tables:
        check_page(page, name)
    for name, table in tables.items():
        write_table(table, page, name)
    images = page.parent / "images"
    images.mkdir(exist_ok=True)
    draw_gains(runs, images / "real_data_gains.png")
    draw_confusions(runs, images / "real_data_confusions.png")


@literal_texts()
def draw_gains(runs: Runs, path: Path) -> None:
    """Draw what each block adds to the control, with the least and most of a fold.

    Args:
        runs (Sequence[Mapping]): Results of the study.
        path (Path): The picture to write, PNG.
    """
    control = select(runs, "frame-wise", CONTROL, folds="three")
    cells = {
        title: difference_by_fold(
            select(runs, "frame-wise", title, folds="three"), control
        )
        for title in BLOCKS
        if title != CONTROL and select(runs, "frame-wise", title, folds="three")
    }
    ordered = sorted(cells, key=lambda title: cells[title][0])
    figure = Figure(figsize=(7.2, 0.34 * len(ordered) + 1.3), dpi=150)
    figure.set_layout_engine("constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for row, title in enumerate(ordered):
        mean, low, high = cells[title]
        colour = colour_of("poly_nl") if title.startswith("PolyNL3d") else REST
        axes.plot([low, high], [row, row], color=colour, linewidth=2.5)
        axes.plot(mean, row, "o", color=colour, markersize=6)
    axes.axvline(0, color=FLOOR, linestyle=":")
    axes.set_yticks(range(len(ordered)), ordered)
    # Of the figure: the names at the left leave the axes too narrow for them.
    figure.suptitle("What a block adds to a frame-wise network", fontsize=11)
    figure.supxlabel(
        "percentage points over a 1x1x1 convolution, on people never seen; least and "
        "most of three folds",
        fontsize=9,
    )
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    _save(figure, path)


@literal_texts()
def draw_confusions(runs: Runs, path: Path) -> None:
    """Draw what the actions were taken for, with and without context.

    Args:
        runs (Sequence[Mapping]): Results of the study.
        path (Path): The picture to write, PNG.
    """
    figure = Figure(figsize=(4 * len(SHOWN), 5.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(SHOWN), sharey=True)
    for axes, (network, title) in zip(panels, SHOWN, strict=True):
        counts = confusions(select(runs, network, title))
        shares = counts / counts.sum(axis=1, keepdims=True)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.ndindex(*shares.shape):
            share = shares[row, column]
            axes.text(
                column,
                row,
                f"{100 * share:.1f}",
                ha="center",
                va="center",
                color="white" if share > 0.5 else "black",
                fontsize=9,
            )
        axes.set_title(f"{network}\n{title}: {_percent(counts):.1f} %", fontsize=11)
        axes.set_xticks(range(len(CLASSES)), CLASSES, rotation=45, ha="right")
        axes.set_yticks(range(len(CLASSES)), CLASSES)
        axes.set_xlabel("predicted")
    panels[0].set_ylabel("true")
    _save(figure, path)


def _percent(counts: np.ndarray) -> float:
    return 100 * counts.trace() / counts.sum()


def _save(figure: Figure, path: Path) -> None:
    with renamed_when_complete(path) as partial:
        figure.savefig(partial, format="png")
