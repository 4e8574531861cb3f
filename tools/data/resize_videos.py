"""Make the short side of videos 256 or 320: see ``resize_videos.py --help``."""

from polynl_mm.datasets.preparation.resize_videos import main

if __name__ == "__main__":
    main()
