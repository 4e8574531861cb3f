"""Grad-CAM of any module, drawn over a video: see ``--help``."""

from polynl_mm.commands.grad_cam import main

if __name__ == "__main__":
    main()
