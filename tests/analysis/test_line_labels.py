"""Names at lines stand apart, in order, and inside the picture."""

import itertools

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from polynl_mm.analysis.line_labels import Label, label_lines


@pytest.mark.parametrize(
    "heights", [[1, 1.001, 1.002], [0, 5, 10], [10, 9.99, 9.98, 0], [3], []]
)
@pytest.mark.parametrize("x", [None, 1.05])
def test_names_do_not_cover_each_other(heights, x):
    figure = Figure(figsize=(5, 4))
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set(xlim=(0, 1), ylim=(0, 10))
    labels = [Label(1, y, f"$line {y}", "black") for y in heights]
    label_lines(axes, labels, x=x)
    canvas.draw()
    boxes = {text.get_text(): text.get_window_extent() for text in axes.texts}
    assert set(boxes) == {label.text for label in labels}
    ordered = [boxes[f"$line {y}"] for y in sorted(heights)]
    for low, high in itertools.pairwise(ordered):
        assert (high.y0 + high.y1) / 2 - (low.y0 + low.y1) / 2 >= 0.9 * low.height
    top = axes.get_window_extent().y1
    assert all((box.y0 + box.y1) / 2 <= top for box in ordered)
