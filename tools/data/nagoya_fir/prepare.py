"""Prepare the Nagoya FIR actions: see ``prepare.py --help``."""

from polynl_mm.datasets.preparation.nagoya_fir import main

if __name__ == "__main__":
    main()
