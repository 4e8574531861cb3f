"""One colour for each block, told apart by the colour-blind."""

import itertools

import pytest
from matplotlib.colors import to_rgb

from polynl_mm.analysis import colours
from polynl_mm.analysis.colours import colour_of, distinct_styles


@pytest.mark.parametrize(
    ("name", "colour"),
    [
        ("PolyNL3d", colours.OURS),
        ("PolyNL2d(reduction=4)", colours.OURS),
        ("work_dirs/quickstart/poly_nl", colours.OURS),
        ("slowonly_r18-polynl_2xb16", colours.OURS),
        ("mmcv NonLocal3d, dot product", colours.NOW),
        ("conv 1x1x1", colours.FLOOR),
        ("no plugin", colours.REST),
        ("work_dirs/quickstart/no_plugin", colours.REST),
        ("GlobalContext3d", colours.REST),
    ],
)
def test_roles(name, colour):
    assert colour_of(name) == colour


def test_lines_are_distinct_and_keep_their_roles():
    names = ["no plugin", "a", "PolyNL3d", "b", "PolyNL3d seed 1", *"cdefghij"]
    styles = distinct_styles(names)
    assert len(set(styles)) == len(names)
    assert styles[2] == (colours.OURS, "-") and styles[4] == (colours.OURS, "--")
    assert styles[0][0] == colours.REST
    assert all(c != colours.OURS for c, _ in styles[5:])


def test_palette_differs_in_more_than_red_and_green():
    """Blue, or lightness, tells any two apart that are drawn as lines of their own."""
    palette = [colours.OURS, colours.NOW, colours.FLOOR, colours.REST]
    for one, other in itertools.combinations(map(to_rgb, palette), 2):
        light = [0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2] for c in (one, other)]
        assert abs(one[2] - other[2]) > 0.15 or abs(light[0] - light[1]) > 0.15
