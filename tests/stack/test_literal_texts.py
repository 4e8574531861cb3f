"""Dollar signs in the names of classes and files are dollar signs in every picture."""

import ast

import numpy as np
import pytest
from conftest import REPO
from matplotlib import rcParams
from matplotlib.figure import Figure

from polynl_mm.analysis.accuracy.confusion_picture import draw_confusions
from polynl_mm.recognizers.timelines import Timeline
from polynl_mm.stack.literal_texts import literal_texts
from polynl_mm.stack.visualization import draw_strip

NAMES = ["a$x_{$", "$x^2$"]  # no mathematics, and such


def test_every_picture_is_drawn_with_literal_texts():
    drawn = 0
    for file in (REPO / "polynl_mm").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef):
                continue
            calls = [c.func for c in ast.walk(node) if isinstance(c, ast.Call)]
            makers = {ast.unparse(func) for func in calls} & {"Figure", "plt.figure"}
            if makers:
                drawn += 1
                wraps = [ast.unparse(wrap) for wrap in node.decorator_list]
                assert "literal_texts()" in wraps, f"{file.name}: {node.name}"
    assert drawn >= 12


def confusions(path):
    counts = np.array([[3, 1], [0, 2]])
    draw_confusions(counts, NAMES, path, counts.sum(axis=1), title=NAMES[1])


def timeline(path):
    scores = [np.array([0.9, 0.1]), np.array([0.2, 0.8])]
    Timeline(NAMES[1], NAMES, [0.0, 1.0], [1.0, 2.0], scores).draw(path)


@pytest.mark.parametrize("draw", [confusions, timeline])
def test_names_are_shown_as_they_are(draw, tmp_path):
    draw(tmp_path / "a.svg")
    texts = (tmp_path / "a.svg").read_text()  # each text is in a comment, too
    for name in NAMES:
        assert f"<!-- {name} -->" in texts
    assert rcParams["text.parse_math"], "others may have mathematics in their pictures"


def test_pictures_of_predictions(tmp_path):
    figure = Figure()
    with literal_texts():
        draw_strip(figure, np.zeros((1, 4, 4, 3), np.uint8), NAMES[0])
        figure.savefig(tmp_path / "a.png")
