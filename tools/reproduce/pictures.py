"""The pictures of the documentation: see polynl_mm/experiments/pictures.py."""

from polynl_mm.experiments.pictures import main

if __name__ == "__main__":
    main()
