"""Where every block looks on Bookends: see polynl_mm/experiments."""

from polynl_mm.experiments.bookends_influence import main

if __name__ == "__main__":
    main()
