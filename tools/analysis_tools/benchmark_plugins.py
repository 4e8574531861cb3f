"""Time and memory of the plugins and their peers: JSON, CSV, two plots, a table."""

from polynl_mm.commands.benchmark_plugins import main

if __name__ == "__main__":
    main()
