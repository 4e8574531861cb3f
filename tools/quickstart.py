"""Generate, train, evaluate and plot Bookends: see ``quickstart.sh --help``."""

from polynl_mm.analysis.quickstart import main

if __name__ == "__main__":
    main()
