"""A table is read back as it was written."""

import pytest

from polynl_mm.analysis.cost.sweep_results import Point, format_table, read_table
from polynl_mm.user_errors import UserError


def test_table_is_read_back():
    points = [
        Point(name, n, training, n * 1.5e-3 + training, n / 7)
        for training in (False, True)
        for name in ("PolyNL3d", "mmcv NonLocal3d, dot product")
        for n in (784, 100352)
        if name == "PolyNL3d" or n < 1000
    ]
    page = f"# Page\n\n| a | b |\n|---|---|\n| c | 1 (2) |\n\n{format_table(points)}"
    found = read_table(page, "page.md")
    assert len(found) == len(points) == 6
    for one, other in zip(found, points, strict=True):
        assert one.subject == other.subject and one.positions == other.positions
        assert one.training == other.training
        assert one.milliseconds == pytest.approx(other.milliseconds, rel=0.01)
        assert one.peak_mib == pytest.approx(other.peak_mib, rel=0.01)


def test_page_without_a_table():
    with pytest.raises(UserError, match=r"page\.md has no table of benchmark_plugins"):
        read_table("| a | N = 3 |\n|---|---|\n", "page.md")
