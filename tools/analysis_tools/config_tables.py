"""Tables of the READMEs of configs/: see polynl_mm/experiments/config_tables.py."""

from polynl_mm.commands.config_tables import main

if __name__ == "__main__":
    main()
