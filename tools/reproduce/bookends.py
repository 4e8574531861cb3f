"""Bookends for every block: see polynl_mm/experiments/bookends_table.py."""

from polynl_mm.experiments.bookends_table import main

if __name__ == "__main__":
    main()
