"""The plots and sortable tables of a report, by Bokeh.

Backgrounds are transparent and letters of a middle grey, so that the page's own
colours, light or dark, stand behind them.
"""

from collections.abc import Sequence

import numpy as np
from bokeh.models import (
    ColumnDataSource,
    DataTable,
    HoverTool,
    InlineStyleSheet,
    LayoutDOM,
    NumberFormatter,
    StringFormatter,
    TableColumn,
)
from bokeh.palettes import Blues256
from bokeh.plotting import figure

from polynl_mm.analysis.accuracy.accuracies import count_confusions
from polynl_mm.analysis.accuracy.confusion_picture import row_shares
from polynl_mm.analysis.accuracy.training_curves import TITLES
from polynl_mm.analysis.colours import BLACK, GREY, distinct_styles
from polynl_mm.analysis.report.recorded_runs import Run

CURVES = ("acc/top1", "loss", "lr")
DASHES = {"-": "solid", "--": "dashed", ":": "dotted", "-.": "dashdot"}
ROW_HEIGHT = 28
MOST_NUMBERS, MOST_NAMES, SHORT_NAME = 24, 60, 3
# The table is a component of its own: the page's rules do not reach into it.
TABLE_COLOURS = """
.slick-header-column, .slick-header-columns, .slick-row, .slick-cell {
  background: var(--panel) !important; color: var(--ink) !important;
  border-color: var(--line) !important; }
.slick-header-column { font-weight: 600; }
.slick-row.odd .slick-cell { background: var(--band) !important; }
.slick-cell.selected { background: var(--band) !important; }
"""


def styles_of(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Return a colour and a dash for each run, to be seen on black and on white.

    Args:
        runs (Sequence[Run]): The runs.
    """
    found = distinct_styles([run.title for run in runs])
    return [(GREY if colour == BLACK else colour, dash) for colour, dash in found]


def draw_curves(runs: Sequence[Run]) -> list[tuple[str, LayoutDOM]]:
    """Draw accuracy, loss and learning rate, as far as they were recorded.

    Args:
        runs (Sequence[Run]): The runs.

    Returns:
        list[tuple[str, LayoutDOM]]: Titles and plots.
    """
    over = "epoch" if all(run.log.epoch_length for run in runs) else "iter"
    plots = []
    for key in CURVES:
        share = key.startswith("acc/")
        plot = _figure(over, TITLES[key])
        drawn = False
        for run, (colour, dash) in zip(runs, styles_of(runs), strict=True):
            places, values = run.log.curve(key, over)
            if not places:
                continue
            drawn = True
            source = ColumnDataSource(
                dict(
                    x=places,
                    y=[100 * value for value in values] if share else values,
                    run=[run.title] * len(places),
                )
            )
            plot.line(
                "x",
                "y",
                source=source,
                color=colour,
                line_width=2.5,
                line_dash=DASHES[dash],
            )
            if share:
                plot.scatter("x", "y", source=source, color=colour, size=6)
        if drawn:
            plot.add_tools(HoverTool(tooltips=[("", "@run"), (over, "@x"), ("", "@y")]))
            plots.append((TITLES[key], plot))
    return plots


def draw_accuracy_against_cost(runs: Sequence[Run]) -> list[tuple[str, LayoutDOM]]:
    """Draw top-1 against operations and against latency.

    Args:
        runs (Sequence[Run]): Those without either have no point.

    Returns:
        list[tuple[str, LayoutDOM]]: Titles and plots.
    """
    plots = []
    axes = {"gflops": "GFLOPs of a view", "milliseconds": "latency of a view, ms"}
    for key, label in axes.items():
        points = [
            (run.cost[key], 100 * run.accuracies["top1"], run.title, colour)
            for run, (colour, _) in zip(runs, styles_of(runs), strict=True)
            if key in run.cost and "top1" in run.accuracies
        ]
        if not points:
            continue
        xs, ys, titles, colours = zip(*points, strict=True)
        title = f"top-1 (%) against {label}"
        plot = _figure(label, "top-1 (%)")
        margin = 0.35 * ((max(xs) - min(xs)) or max(xs) or 1)
        plot.x_range.start, plot.x_range.end = min(xs) - margin, max(xs) + margin
        low, high = min(ys), max(ys)
        pad = 0.15 * ((high - low) or 10)
        plot.y_range.start, plot.y_range.end = low - pad, high + 2 * pad
        source = ColumnDataSource(dict(x=xs, y=ys, run=titles, colour=colours))
        plot.scatter("x", "y", source=source, color="colour", size=12)
        plot.text(
            "x",
            "y",
            text="run",
            source=source,
            text_color="colour",
            text_font_size="13px",
            text_align="center",
            y_offset=-10,
        )
        plot.add_tools(HoverTool(tooltips=[("", "@run"), (label, "@x"), ("", "@y")]))
        plots.append((title, plot))
    return plots


def draw_confusions(run: Run, names: Sequence[str]) -> LayoutDOM:
    """Draw the confusion matrix of a run, each row as shares of its true class.

    Args:
        run (Run): With results.
        names (Sequence[str]): The names of the classes.

    Returns:
        LayoutDOM: The plot.
    """
    matrix = count_confusions(run.results)
    shares = np.nan_to_num(row_shares(matrix, matrix.sum(axis=1)))
    true, predicted = (part.ravel() for part in np.indices(matrix.shape))
    numbered = len(names) <= MOST_NUMBERS
    colours = [Blues256[255 - round(255 * share)] for share in shares.ravel()]
    source = ColumnDataSource(
        dict(
            x=predicted + 0.5,
            y=true + 0.5,
            colour=colours,
            share=[f"{share:.1%}" for share in shares.ravel()],
            number=matrix.ravel(),
            text=[f"{100 * s:.0f}" if n else "" for s, n in _cells(shares, matrix)],
            ink=["white" if share > 0.5 else "#222222" for share in shares.ravel()],
            true=[names[label] for label in true],
            predicted=[names[label] for label in predicted],
        )
    )
    plot = _figure("predicted class", "true class", height=460)
    plot.rect("x", "y", 1, 1, source=source, color="colour", line_color=None)
    plot.y_range.start, plot.y_range.end = len(names), 0
    plot.x_range.start, plot.x_range.end = 0, len(names)
    plot.grid.visible = False
    if numbered:
        plot.text(
            "x",
            "y",
            text="text",
            source=source,
            text_color="ink",
            text_align="center",
            text_baseline="middle",
            text_font_size="11px",
        )
    if len(names) <= MOST_NAMES:
        for axis in (plot.xaxis, plot.yaxis):
            axis.ticker = [place + 0.5 for place in range(len(names))]
            axis.major_label_overrides = {
                place + 0.5: name for place, name in enumerate(names)
            }
        if max(map(len, names)) > SHORT_NAME:
            plot.xaxis.major_label_orientation = "vertical"
    plot.add_tools(
        HoverTool(
            tooltips=[
                ("true", "@true"),
                ("predicted", "@predicted"),
                ("share", "@share"),
                ("clips", "@number"),
            ]
        )
    )
    return plot


def make_table(columns: dict[str, Sequence], digits: dict[str, str]) -> LayoutDOM:
    """Make a table that is sorted by a click on the head of a column.

    Args:
        columns (dict[str, Sequence]): Numbers, with nan for what is not known, or
            text, by the heads.
        digits (dict[str, str]): The format of the columns of numbers, such as
            ``"0.0"``.

    Returns:
        LayoutDOM: The table.
    """
    rows = len(next(iter(columns.values())))
    source = ColumnDataSource(
        {f"c{place}": list(values) for place, values in enumerate(columns.values())}
    )
    heads = []
    for place, (head, values) in enumerate(columns.items()):
        form = StringFormatter()
        if head in digits:
            form = NumberFormatter(
                format=digits[head], text_align="right", nan_format="-"
            )
        longest = max(len(head) + 3, *(len(_shown(value)) for value in values))
        heads.append(
            TableColumn(
                field=f"c{place}",
                title=head,
                formatter=form,
                width=min(9 * longest + 14, 420),
            )
        )
    return DataTable(
        source=source,
        columns=heads,
        index_position=None,
        autosize_mode="none",
        sizing_mode="stretch_width",
        height=ROW_HEIGHT * (min(rows, 16) + 1) + 24,
        row_height=ROW_HEIGHT,
        stylesheets=[InlineStyleSheet(css=TABLE_COLOURS)],
    )


def _shown(value) -> str:
    return value if isinstance(value, str) else f"{value:.5g}"


def _cells(shares: np.ndarray, matrix: np.ndarray):
    return zip(shares.ravel(), matrix.ravel(), strict=True)


def _figure(x_label: str, y_label: str, height: int = 320):
    plot = figure(
        sizing_mode="stretch_width",
        height=height,
        x_axis_label=x_label,
        y_axis_label=y_label,
        tools="pan,box_zoom,reset,save",
        toolbar_location="above",
        background_fill_color=None,
        border_fill_color=None,
        outline_line_color=None,
        output_backend="svg",
    )
    plot.toolbar.logo = None
    for axis in plot.axis:
        axis.update(
            axis_label_text_color=GREY,
            major_label_text_color=GREY,
            axis_line_color=GREY,
            major_tick_line_color=GREY,
            minor_tick_line_color=None,
            axis_label_text_font_style="normal",
        )
    plot.grid.grid_line_color = GREY
    plot.grid.grid_line_alpha = 0.25
    return plot
