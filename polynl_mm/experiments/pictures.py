"""The pictures of the documentation, drawn from the tables that its pages hold."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from polynl_mm.analysis.accuracy.runs import ROOT
from polynl_mm.analysis.colours import GREY, NOW, OURS, PALE
from polynl_mm.analysis.cost.sweep_pictures import (
    ALWAYS,
    POLY_NL,
    USERS_HAVE,
    amount,
    draw_lines,
    draw_sweep,
)
from polynl_mm.analysis.cost.sweep_results import Point, read_table
from polynl_mm.analysis.line_labels import Label, label_lines
from polynl_mm.atomic_files import expect_outputs, renamed_when_complete
from polynl_mm.experiments.page_tables import END, START
from polynl_mm.stack.literal_texts import literal_texts
from polynl_mm.text_files import read_text
from polynl_mm.user_errors import UserError, user_errors

SIZE = 28  # H and W of the sweep in docs/performance.md
SUBTITLE = "256 channels, 28 x 28 positions a frame, float32, two CPU cores"
CHANCE = 50
NO_PLUGIN = "no plugin"
_ROW = re.compile(r"\| ([^|]+) \| (\d+) \| ([\d.]+)(?: ± ([\d.]+))? \| ([\d.]+) \|")


@dataclass(frozen=True)
class Solved:
    """How well a block solves Bookends.

    Attributes:
        block (str): Its name.
        top1 (float): Per cent, the mean over the seeds.
        lowest (float): Per cent, of the worst seed.
    """

    block: str
    top1: float
    lowest: float


def read_solved(page: str, name: str) -> list[Solved]:
    """Read the table of :mod:`polynl_mm.experiments.bookends_table`.

    Args:
        page (str): The text of a page with the table.
        name (str): Of the page, for errors.

    Returns:
        list[Solved]: One for each block.

    Raises:
        UserError: If the page has no such table.
    """
    table = page.split(START)[-1].split(END)[0]
    rows = [found for line in table.splitlines() if (found := _ROW.match(line))]
    if not rows:
        raise UserError(
            f"{name} has no table of blocks; run bash tools/reproduce/bookends.sh."
        )
    return [Solved(row[1], float(row[3]), float(row[5])) for row in rows]


@literal_texts()
def draw_first_picture(
    points: Sequence[Point], solved: Sequence[Solved], path: Path
) -> None:
    """Draw cost against clip length, beside accuracy.

    Args:
        points (Sequence[Point]): Of the sweep.
        solved (Sequence[Solved]): Of Bookends.
        path (Path): The PNG to write.
    """
    figure = Figure(figsize=(11.5, 4.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1.1, 1))
    _draw_cost(left, points)
    _draw_accuracy(right, solved)
    figure.draw_without_rendering()  # the places of the panels
    label_lines(left, left.line_labels, size=9.5, x=1.03)
    with renamed_when_complete(path) as partial:
        figure.savefig(partial)


def _draw_cost(panel: Axes, points: Sequence[Point]) -> None:
    steps = [p for p in points if p.training]
    names = dict.fromkeys(p.subject for p in steps)
    lines = {
        name: [
            (p.positions / SIZE**2, p.milliseconds) for p in steps if p.subject == name
        ]
        for name in names
    }
    for name, line in lines.items():
        if name not in ALWAYS:
            panel.plot(*zip(*line, strict=True), color=PALE, linewidth=0.8, alpha=0.6)
    draw_lines(panel, {name: lines[name] for name in ALWAYS})
    shown = {POLY_NL: "PolyNL3d: linear", USERS_HAVE: "mmcv's NonLocal3d"}
    ends = [label for label in panel.line_labels if label.x == panel.get_xticks()[-1]]
    panel.line_labels = [
        Label(
            label.x,
            label.y,
            shown.get(name, "one 1x1x1 convolution"),
            label.colour,
            label.bold,
        )
        for label in ends
        for name in ALWAYS
        if label.text.startswith(f"{name}  ")
    ]
    others = [line[-1] for name, line in lines.items() if name not in ALWAYS]
    x, y = max(others, key=lambda end: (end[0], end[1]))
    panel.line_labels.append(Label(x, y, "other blocks", GREY))
    ours, theirs = dict(lines[POLY_NL]), dict(lines[USERS_HAVE])
    last = max(set(ours) & set(theirs))
    panel.annotate(
        "mmcv's NonLocal3d,\nwhat users have now",
        (last, theirs[last]),
        (-10, 4),
        textcoords="offset points",
        color=NOW,
        fontsize=9.5,
        ha="right",
    )
    panel.annotate(
        "",
        (last, ours[last] * 1.2),
        (last, theirs[last] / 1.1),
        arrowprops={"arrowstyle": "<->", "color": OURS, "linewidth": 1.2},
    )
    panel.text(
        last * 1.08,
        (ours[last] * theirs[last]) ** 0.5 * 1.5,
        f"{theirs[last] / ours[last]:.0f} times faster",
        color=OURS,
        fontsize=10,
        fontweight="bold",
    )
    panel.yaxis.set_major_formatter(
        FuncFormatter(lambda value, _: amount(value, ("ms", "s"), 1000))
    )
    panel.set_title("Cost: time of a training step of one block", fontsize=11)
    panel.set_xlabel(f"frames, of {SIZE} x {SIZE} positions and 256 channels")


def _draw_accuracy(panel: Axes, solved: Sequence[Solved]) -> None:
    order = sorted(solved, key=lambda each: (each.top1, each.block == POLY_NL))
    for place, each in enumerate(order):
        ours, floor = each.block == POLY_NL, each.block == NO_PLUGIN
        now = "embedded Gaussian" in each.block
        colour = OURS if ours else GREY if floor else NOW if now else PALE
        panel.plot(
            [each.lowest, each.top1],
            [place, place],
            color=colour,
            linewidth=3 if ours else 1.5,
            alpha=0.6,
            solid_capstyle="round",
        )
        panel.plot(
            each.top1, place, "o", color=colour, markersize=10 if ours else 6, zorder=3
        )
    panel.axvline(CHANCE, color=GREY, linestyle=":", linewidth=1)
    panel.text(
        CHANCE + 0.8, len(order) - 1, "guessing", color=GREY, fontsize=9, va="center"
    )
    panel.set_yticks(range(len(order)), [each.block for each in order], fontsize=9)
    for text, each in zip(panel.get_yticklabels(), order, strict=True):
        ours = each.block == POLY_NL
        now = "embedded Gaussian" in each.block
        text.set_color(OURS if ours else NOW if now else GREY)
        text.set_fontweight("bold" if ours else "normal")
    panel.set_xlim(46, 102)
    panel.set_xlabel("top-1, % (mean of seeds, line: the worst)")
    panel.set_title(
        "Accuracy: is the last disc of the first one's colour?",
        fontsize=11,
        loc="right",
    )
    panel.grid(axis="x", alpha=0.25)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.tick_params(axis="y", length=0)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line of ``tools/reproduce/pictures.py``.

    Args:
        argv (Sequence[str], optional): Arguments; by default those of the process.

    Returns:
        argparse.Namespace: The arguments.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--docs",
        type=Path,
        default=ROOT / "docs",
        help="the folder with performance.md and bookends.md (default docs)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=ROOT / "docs/images",
        help="where the pictures go (default docs/images)",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Draw the pictures.

    Args:
        argv (Sequence[str], optional): Arguments; by default those of the process.
    """
    args = parse_args(argv)
    with user_errors():
        expect_outputs(folders={"--out": args.out})
        sweep, solved = args.docs / "performance.md", args.docs / "bookends.md"
        points = read_table(read_text(sweep, "page"), str(sweep))
        blocks = read_solved(read_text(solved, "page"), str(solved))
        draw_first_picture(points, blocks, args.out / "cost_and_accuracy.png")
        for column, name in (("milliseconds", "time"), ("peak_mib", "memory")):
            path = args.out / f"benchmark_{name}.png"
            draw_sweep(points, column, SIZE, path, SUBTITLE)
        print(
            f"In {args.out}: cost_and_accuracy.png, benchmark_time.png, "
            "benchmark_memory.png"
        )
