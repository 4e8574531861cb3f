"""Bookends for every block: see polynl_mm/analysis/bookends_table.py."""

from polynl_mm.analysis.bookends_table import main

if __name__ == "__main__":
    main()
