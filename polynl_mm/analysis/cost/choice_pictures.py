"""The costs of several plugins in one network, as a table, CSV and a picture."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from polynl_mm.analysis.colours import GREY, OURS, PALE, colour_of
from polynl_mm.analysis.cost.compare_choices import Choice
from polynl_mm.atomic_files import renamed_when_complete
from polynl_mm.stack.literal_texts import literal_texts

Column = tuple[str, Callable[[Choice], float | int | None], str]
COLUMNS: tuple[Column, ...] = (
    ("parameters, M", lambda c: c.parameters / 1e6, "{:.1f}"),
    ("GFLOPs", lambda c: c.gflops, "{:.1f}"),
    ("memory of a step, GB", lambda c: c.step_bytes / 1e9, "{:.2f}"),
    ("time of a step", lambda c: c.step_ratio, "{:.2f} x"),
    ("latency of a view", lambda c: c.view_ratio, "{:.2f} x"),
    ("largest batch", lambda c: c.largest_batch, "{}"),
    ("longest clip, frames", lambda c: c.longest_clip, "{}"),
)


def format_table(choices: Sequence[Choice]) -> str:
    """Lay the costs out as a Markdown table.

    Args:
        choices (Sequence[Choice]): From :func:`compare_choices`.

    Returns:
        str: A row for each; times are ratios to the first.
    """
    columns = _known(choices)
    lines = [
        f"| choice | {' | '.join(title for title, *_ in columns)} |",
        f"|---{'|---' * len(columns)}|",
    ]
    for choice in choices:
        cells = [form.format(value(choice)) for _, value, form in columns]
        lines.append(f"| {choice.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write_csv(choices: Sequence[Choice], path: Path) -> None:
    """Write the costs as they were measured.

    Args:
        choices (Sequence[Choice]): From :func:`compare_choices`.
        path (Path): The file.
    """
    rows = [asdict(choice) for choice in choices]
    with (
        renamed_when_complete(path) as partial,
        open(partial, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@literal_texts()
def draw_choices(choices: Sequence[Choice], path: Path, title: str) -> None:
    """Draw a panel for each cost, with a row for each choice.

    Args:
        choices (Sequence[Choice]): From :func:`compare_choices`.
        path (Path): The PNG to write.
        title (str): What was compared.
    """
    columns = _known(choices)
    # From the cheapest step to the dearest, read from above.
    order = sorted(choices, key=lambda c: (-c.step_ratio, c.name))
    figure = Figure(
        figsize=(2.1 * len(columns) + 2.4, 0.36 * len(order) + 1.5),
        dpi=130,
        layout="constrained",
    )
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    names = [choice.name for choice in order]
    for panel, (label, value, form) in zip(panels, columns, strict=True):
        values = [value(choice) for choice in order]
        colours = [_colour(choice) for choice in order]
        panel.barh(names, values, color=colours, height=0.66)
        for place, number in enumerate(values):
            panel.text(number, place, " " + form.format(number), va="center", size=8)
        panel.set_xlim(0, max(*values, 1e-9) * 1.42)
        panel.set_title(label, fontsize=9.5, loc="left")
        panel.spines[["top", "right", "bottom"]].set_visible(False)
        panel.tick_params(bottom=False, labelbottom=False, left=False)
    for text, choice in zip(panels[0].get_yticklabels(), order, strict=True):
        ours = _colour(choice) == OURS
        text.set_color(OURS if ours else "black")
        text.set_fontweight("bold" if ours else "normal")
    figure.suptitle(title, fontsize=9.5, color=GREY)
    with renamed_when_complete(path) as partial:
        figure.savefig(partial)


def _known(choices: Sequence[Choice]) -> list[Column]:
    return [c for c in COLUMNS if all(c[1](choice) is not None for choice in choices)]


def _colour(choice: Choice) -> str:
    return colour_of(choice.name, PALE)
