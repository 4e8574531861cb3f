"""One self-contained page on any set of trainings."""

from polynl_mm.commands.report import main

if __name__ == "__main__":
    main()
