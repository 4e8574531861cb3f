"""Predict videos: see ``--help``."""

import checked_stack  # noqa: F401  (before what it checks)

from polynl_mm.commands.predict import main

if __name__ == "__main__":
    raise SystemExit(main())
