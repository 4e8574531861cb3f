"""The whole config, and the plugins that it puts into the model."""

from polynl_mm.commands.print_config import main

if __name__ == "__main__":
    main()
