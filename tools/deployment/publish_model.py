"""Publish a checkpoint: see ``--help``."""

from polynl_mm.commands.publish_model import main

if __name__ == "__main__":
    main()
