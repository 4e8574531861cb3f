"""Compare each schedule with what it replaces, in time and memory (CPU, float32)."""

from polynl_mm.commands.compare_schedules import main

if __name__ == "__main__":
    main()
