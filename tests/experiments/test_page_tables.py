"""A table goes into its place in a page, and nowhere else."""

import pytest

from polynl_mm.experiments.page_tables import END, START, write_table
from polynl_mm.user_errors import UserError


def test_only_the_part_between_the_marks_changes(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{START}\nold\n{END}\nafter\n")
    write_table("new", page)
    assert page.read_text() == f"before\n{START}\nnew\n{END}\nafter\n"
    page.write_text("no marks")
    with pytest.raises(UserError, match="needs the lines"):
        write_table("new", page)
