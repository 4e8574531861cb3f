"""Pictures of a sweep over clip lengths: a row of panels for each family of blocks.

Ours, what users have now and the floor stand in every panel, in their colours; of the
family's other members the lines have names.
"""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from polynl_mm.analysis.colours import FLOOR, GREY, NOW, OURS, PALE, colour_of
from polynl_mm.analysis.cost.sweep_results import TITLES, Point, fit_slope
from polynl_mm.analysis.line_labels import Label, label_lines
from polynl_mm.atomic_files import renamed_when_complete
from polynl_mm.stack.literal_texts import literal_texts

POLY_NL, USERS_HAVE, LOWEST = "PolyNL3d", "mmcv NonLocal3d", "conv 1x1x1"
ALWAYS = (POLY_NL, USERS_HAVE, LOWEST)
FAMILIES = {
    "Poly-NL": ("Poly-NL as three convolutions",),
    "Non-local block": (
        "mmcv NonLocal3d, sub_sample",
        "mmcv NonLocal3d, dot product",
        "NonLocalBlock3d",
        "NonLocalBlock3d, sub_sample",
        "NonLocalBlock3d, dot product",
        "NonLocalBlock3d, concatenation",
    ),
    "Other blocks": (),  # all that no family names
}
UNITS = {
    "milliseconds": ("time, ms", ("ms", "s"), 1000),
    "peak_mib": ("peak extra memory, MiB", ("MiB", "GiB"), 1024),
}


@literal_texts()
def draw_sweep(
    points: Sequence[Point], column: str, size: int, path: Path, subtitle: str
) -> None:
    """Draw what was measured against the frames of a clip.

    Args:
        points (Sequence[Point]): What was measured.
        column (str): ``'milliseconds'`` or ``'peak_mib'``.
        size (int): H and W of the features: a frame has so many positions squared.
        path (Path): The PNG to write.
        subtitle (str): On what it was measured.
    """
    names = list(dict.fromkeys(point.subject for point in points))
    named = {name for family in FAMILIES.values() for name in family}
    families = {
        title: [n for n in names if n in family]
        if family
        else [n for n in names if n not in named and n not in ALWAYS]
        for title, family in FAMILIES.items()
    }
    families = {title: found for title, found in families.items() if found} or {"": []}
    # Not pyplot: it would set the process's backend, and looks for a display.
    height = 3.4 * len(families) + 0.6
    figure = Figure(figsize=(11, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(families), 2, sharex=True, sharey=True, squeeze=False)
    label, short, factor = UNITS[column]
    for row, (family, members) in zip(grid, families.items(), strict=True):
        for panel, (training, title) in zip(row, TITLES.items(), strict=True):
            chosen = [n for n in names if n in ALWAYS or n in members]
            lines = {
                name: [
                    (p.positions / size**2, max(getattr(p, column), 1e-3))
                    for p in points
                    if (p.subject, p.training) == (name, training)
                ]
                for name in chosen
            }
            draw_lines(panel, {n: line for n, line in lines.items() if line})
            panel.set_title(
                f"{family}, {title}" if family else title, fontsize=11, loc="left"
            )
            panel.yaxis.set_major_formatter(
                FuncFormatter(lambda value, _: amount(value, short, factor))
            )
        row[0].set_ylabel(label)
    for panel in grid[-1]:
        panel.set_xlabel("frames of the clip at the block")
    figure.draw_without_rendering()  # the places of the panels
    for row in grid:
        for panel in row:
            label_lines(panel, panel.line_labels, x=1.05)
    figure.suptitle(subtitle, fontsize=10, color=GREY)
    with renamed_when_complete(path) as partial:
        figure.savefig(partial)


def draw_lines(panel: Axes, lines: dict[str, list[tuple[float, float]]]) -> None:
    """Draw lines on logarithmic axes, and note the names of their ends.

    Args:
        panel (Axes): Where; ``panel.line_labels`` holds the names afterwards, for
            :func:`polynl_mm.analysis.line_labels.label_lines`.
        lines (dict[str, list[tuple[float, float]]]): By subject: frames and values.
    """
    panel.line_labels = []
    for name, line in lines.items():
        xs, ys = zip(*line, strict=True)
        bold = name == POLY_NL
        panel.loglog(
            xs,
            ys,
            "--" if name.startswith(("mmcv", "conv")) else "-",
            marker="o",
            markersize=4 if bold else 2.5,
            linewidth=3 if bold else 2 if name in ALWAYS else 1.2,
            color=line_colour(name),
            zorder=3 if bold else 2,
        )
        slope = ""
        if len(set(xs)) > 1:
            slope = f"  N^{round(fit_slope(xs, ys), 1) + 0.0}"  # no -0.0
        colour = line_colour(name)
        panel.line_labels.append(
            Label(
                xs[-1],
                ys[-1],
                name + slope,
                # Pale lines have names that are read.
                GREY if colour == PALE else colour,
                bold,
            )
        )
    frames = sorted({x for line in lines.values() for x, _ in line})
    panel.set_xticks(frames, [f"{frame:g}" for frame in frames])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_minor_locator(NullLocator())
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)


def line_colour(name: str) -> str:
    """Return the colour of a subject: of its role, else a pale grey.

    Args:
        name (str): A subject of the benchmark.
    """
    if name in ALWAYS:
        return {POLY_NL: OURS, USERS_HAVE: NOW, LOWEST: FLOOR}[name]
    if name.startswith("NonLocalBlock3d, dot"):
        return colour_of("dot product")
    return PALE


def amount(value: float, short: tuple[str, str], factor: int) -> str:
    """Write a value with the unit that keeps it short.

    Args:
        value (float): In the smaller unit.
        short (tuple[str, str]): The smaller and the larger unit.
        factor (int): Of the smaller ones in a larger.

    Returns:
        str: Such as ``50 ms`` or ``2.1 s``.
    """
    if value >= factor:
        return f"{value / factor:.2g} {short[1]}"
    return f"{value:g} {short[0]}"
