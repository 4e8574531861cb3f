"""Generate, train, evaluate and plot Bookends: see ``quickstart.sh --help``."""

import checked_stack  # noqa: F401  (before what it checks)

from polynl_mm.experiments.quickstart import main

if __name__ == "__main__":
    main()
