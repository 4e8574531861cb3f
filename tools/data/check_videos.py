"""Check the videos of a list: see ``check_videos.py --help``."""

from polynl_mm.datasets.preparation.check_videos import main

if __name__ == "__main__":
    main()
