from matplotlib.figure import Figure

from polynl_mm.analysis.cost.sweep_pictures import draw_lines


def test_lines_are_named_with_the_power_they_grow_by():
    panel = Figure().subplots()
    lines = {
        "PolyNL3d": [(1, 2.0), (2, 4.0), (4, 8.0)],
        "conv 1x1x1": [(1, 2.0), (2, 1.99), (4, 1.98)],
        "of one length": [(1, 2.0)],
    }
    draw_lines(panel, lines)
    names = [label.text for label in panel.line_labels]
    assert names == ["PolyNL3d  N^1.0", "conv 1x1x1  N^0.0", "of one length"]
