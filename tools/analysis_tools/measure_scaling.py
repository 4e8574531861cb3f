"""Measure how training speed grows with the number of processes."""

from polynl_mm.commands.measure_scaling import main

if __name__ == "__main__":
    main()
