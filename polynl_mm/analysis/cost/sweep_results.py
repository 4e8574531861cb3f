"""The points of a sweep over clip lengths, and their tables."""

import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from polynl_mm.user_errors import UserError

TITLES = {False: "forward", True: "forward and backward"}
_HEAD = re.compile(r"\| (forward|forward and backward): ms \(MiB\) \|")
_SIZE = re.compile(r"N = (\d+)")
_CELL = re.compile(r"([\d.e+]+) \(([\d.e+]+)\)")


@dataclass(frozen=True)
class Point:
    """One measurement.

    Attributes:
        subject (str): A key of ``SUBJECTS``.
        positions (int): N.
        training (bool): Forward and backward, or forward without gradients.
        milliseconds (float): Median over the repeats.
        peak_mib (float): Peak extra memory, in MiB.
    """

    subject: str
    positions: int
    training: bool
    milliseconds: float
    peak_mib: float


def fit_slope(positions: Sequence[int], values: Sequence[float]) -> float:
    """Fit a power of N by least squares in logarithms.

    Args:
        positions (Sequence[int]): N of each value; at least two different ones.
        values (Sequence[float]): Positive.

    Returns:
        float: The exponent: 1 is linear, 2 is quadratic.
    """
    xs, ys = [math.log(n) for n in positions], [math.log(v) for v in values]
    return statistics.linear_regression(xs, ys).slope


def format_table(points: Sequence[Point]) -> str:
    """Lay the results out as a Markdown table, a subject a row.

    Args:
        points (Sequence[Point]): From :func:`benchmark`.

    Returns:
        str: Milliseconds and MiB, forward and training, by N; slopes at the end.
    """
    sizes = sorted({point.positions for point in points})
    by_key = {(p.subject, p.positions, p.training): p for p in points}
    names = list(dict.fromkeys(point.subject for point in points))
    lines = []
    for training, title in TITLES.items():
        head = " | ".join(f"N = {n}" for n in sizes)
        lines += [f"| {title}: ms (MiB) | {head} | time grows as |"]
        lines += ["|---" * (len(sizes) + 2) + "|"]
        for name in names:
            found = [by_key.get((name, n, training)) for n in sizes]
            cells = [
                "" if p is None else f"{p.milliseconds:.3g} ({p.peak_mib:.3g})"
                for p in found
            ]
            there = [p for p in found if p is not None]
            slope = ""
            if len(there) > 1:
                exponent = fit_slope(
                    [p.positions for p in there], [p.milliseconds for p in there]
                )
                slope = f"N^{exponent:.2f}"
            lines.append(f"| {name} | {' | '.join(cells)} | {slope} |")
        lines.append("")
    return "\n".join(lines)


def read_table(page: str, name: str) -> list[Point]:
    """Read back what :func:`format_table` wrote into a page.

    Args:
        page (str): The text of a page that holds the tables.
        name (str): Of the page, for errors.

    Returns:
        list[Point]: As they were, to the three digits of the table.

    Raises:
        UserError: If there is no such table.
    """
    points, sizes, training = [], [], False
    for line in page.splitlines():
        if head := _HEAD.match(line):
            training = head[1] == TITLES[True]
            sizes = [int(size) for size in _SIZE.findall(line)]
        elif not line.startswith("|"):
            sizes = []
        elif sizes and not line.startswith("|---"):
            subject, *cells = (cell.strip() for cell in line.strip("| ").split("|"))
            for size, cell in zip(sizes, cells, strict=False):
                if found := _CELL.fullmatch(cell):
                    values = float(found[1]), float(found[2])
                    points.append(Point(subject, size, training, *values))
    if not points:
        raise UserError(
            f"{name} has no table of benchmark_plugins.py; run "
            "python tools/analysis_tools/benchmark_plugins.py and put its table there."
        )
    return points
