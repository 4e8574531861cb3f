"""Write features of videos: see ``--help``."""

import checked_stack  # noqa: F401  (before what it checks)

from polynl_mm.commands.extract_features import main

if __name__ == "__main__":
    raise SystemExit(main())
