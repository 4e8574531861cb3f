"""tools/reproduce/pictures.py draws from the tables of the pages."""

import pytest
from conftest import REPO
from matplotlib.figure import Figure
from PIL import Image

from polynl_mm.analysis import colours
from polynl_mm.analysis.cost.sweep_pictures import amount, draw_lines
from polynl_mm.experiments.pictures import read_solved

NAMES = {"cost_and_accuracy.png", "benchmark_time.png", "benchmark_memory.png"}


def test_pictures_are_drawn(tool, tmp_path):
    tool("reproduce/pictures").main(["--out", str(tmp_path)])
    assert {file.name for file in tmp_path.iterdir()} == NAMES
    for name in NAMES:
        with Image.open(tmp_path / name) as picture:
            shown = {c for _, c in picture.convert("RGB").getcolors(2**20)}
            assert (0x00, 0x72, 0xB2) in shown and (0xD5, 0x5E, 0x00) in shown
        assert (REPO / "docs/images" / name).is_file()


def test_pages_without_tables(tool, tmp_path, capsys):
    (tmp_path / "performance.md").write_text("nothing")
    with pytest.raises(SystemExit):
        tool("reproduce/pictures").main(["--docs", str(tmp_path), "--out", "x"])
    assert "performance.md has no table" in capsys.readouterr().err


def test_rows_of_bookends():
    page = "| a | b |\n|---|---|\n| PolyNL3d | 3 | 99.5 ± 0.4 | 99.1 | 9 | 1 | 2 |\n"
    (row,) = read_solved(page, "page.md")
    assert (row.block, row.top1, row.lowest) == ("PolyNL3d", 99.5, 99.1)
    assert read_solved("| x, y | 1 | 50.0 | 50.0 | 9 |", "page.md")[0].block == "x, y"


def test_tables_beside_that_of_bookends_are_left_alone():
    blocks = read_solved((REPO / "docs/bookends.md").read_text(), "page.md")
    names = [row.block for row in blocks]
    assert len(set(names)) == len(names) > 10
    assert all(row.top1 > 50 for row in blocks)


def test_lines_have_their_names_and_colours():
    panel = Figure().add_subplot()
    line = [(1, 2.0), (2, 4.0)]
    draw_lines(panel, {"PolyNL3d": line, "SpectralNL3d": line, "conv 1x1x1": line})
    drawn = [line.get_color() for line in panel.lines]
    assert drawn == [colours.OURS, colours.PALE, colours.FLOOR]
    assert panel.line_labels[0].text == "PolyNL3d  N^1.0"


def test_amounts():
    assert amount(10, ("ms", "s"), 1000) == "10 ms"
    assert amount(1e4, ("ms", "s"), 1000) == "10 s"
