"""Tables that a command writes into a page of the documentation."""

from pathlib import Path

from polynl_mm.atomic_files import renamed_when_complete
from polynl_mm.text_files import read_text
from polynl_mm.user_errors import UserError


def marks(name: str) -> tuple[str, str]:
    """Return the lines between which a page has the table of that name."""
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"


START, END = marks("table")


def check_page(page: Path, name: str = "table") -> None:
    """Check that a page has a place for a table.

    Args:
        page (Path): A page with the two marks.
        name (str): Which table, where a page has several.

    Raises:
        UserError: If it does not exist or has not both marks.
    """
    text = read_text(page, "page for the table")
    start, end = marks(name)
    if start not in text or end not in text:
        raise UserError(f"{page} needs the lines {start} and {end} for the table.")


def write_table(table: str, page: Path, name: str = "table") -> None:
    """Put the table between the marks of a page, and leave the rest as it is.

    Args:
        table (str): Markdown.
        page (Path): A page with the two marks.
        name (str): Which table, where a page has several.

    Raises:
        UserError: If the page has not both marks.
    """
    check_page(page, name)
    start, end = marks(name)
    text = page.read_text(encoding="utf-8")
    before, after = text.split(start)[0], text.split(end)[1]
    with renamed_when_complete(page) as partial:
        partial.write_text(f"{before}{start}\n{table}\n{end}{after}", encoding="utf-8")
