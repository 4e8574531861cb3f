"""Convert PySlowFast weights: see ``--help``."""

from polynl_mm.commands.pyslowfast import main

if __name__ == "__main__":
    main()
