"""Measure what sharing clips over ranks costs and saves."""

from polynl_mm.commands.measure_clip_parallel import main

if __name__ == "__main__":
    main()
