"""Write MMAction2's lists of UCF-101: see ``build_annotations.py --help``."""

from polynl_mm.datasets.preparation.ucf101 import main

if __name__ == "__main__":
    main()
