"""Score a video over time: see ``--help``."""

import checked_stack  # noqa: F401  (before what it checks)

from polynl_mm.commands.predict_timeline import main

if __name__ == "__main__":
    main()
