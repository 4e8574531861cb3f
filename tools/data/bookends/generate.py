"""Generate the Bookends videos: see ``generate.py --help``."""

from polynl_mm.datasets.bookends import main

if __name__ == "__main__":
    main()
