"""Tables that a command writes into a page of the documentation."""

from pathlib import Path

from polynl_mm.atomic_files import renamed_when_complete
from polynl_mm.text_files import read_text
from polynl_mm.user_errors import UserError

START, END = "<!-- table: begin -->", "<!-- table: end -->"


def check_page(page: Path) -> None:
    """Check that a page has a place for a table.

    Args:
        page (Path): A page with the two marks.

    Raises:
        UserError: If it does not exist or has not both marks.
    """
    text = read_text(page, "page for the table")
    if START not in text or END not in text:
        raise UserError(f"{page} needs the lines {START} and {END} for the table.")


def write_table(table: str, page: Path) -> None:
    """Put the table between the marks of a page, and leave the rest as it is.

    Args:
        table (str): Markdown.
        page (Path): A page with the two marks.

    Raises:
        UserError: If the page has not both marks.
    """
    check_page(page)
    text = page.read_text(encoding="utf-8")
    before, after = text.split(START)[0], text.split(END)[1]
    with renamed_when_complete(page) as partial:
        partial.write_text(f"{before}{START}\n{table}\n{END}{after}", encoding="utf-8")
