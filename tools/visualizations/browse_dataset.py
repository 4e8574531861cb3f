"""The clips that a config's pipeline really yields."""

from polynl_mm.commands.browse_dataset import main

if __name__ == "__main__":
    main()
