"""Curves and speed of trainings: ``analyze_logs.py plot_curve WORK_DIR ...``."""

from polynl_mm.commands.analyze_logs import main

if __name__ == "__main__":
    main()
