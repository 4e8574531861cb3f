"""Where a block looks, drawn over a video: see ``--help``."""

from polynl_mm.commands.influence import main

if __name__ == "__main__":
    main()
