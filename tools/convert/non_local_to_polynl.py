"""Start Poly-NL from a non-local checkpoint: ``non_local_to_polynl.py SRC DST ...``."""

from polynl_mm.commands.non_local_to_polynl import main

if __name__ == "__main__":
    main()
