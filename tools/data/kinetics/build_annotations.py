"""Write MMAction2's lists of Kinetics: see ``build_annotations.py --help``."""

from polynl_mm.datasets.preparation.kinetics import main

if __name__ == "__main__":
    main()
