"""Nagoya FIR for every block: see polynl_mm/experiments/nagoya_fir.py."""

from polynl_mm.experiments.nagoya_fir import main

if __name__ == "__main__":
    main()
