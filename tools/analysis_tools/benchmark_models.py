"""Time, memory and speed of whole networks, with plugins and without."""

from polynl_mm.commands.benchmark_models import main

if __name__ == "__main__":
    main()
