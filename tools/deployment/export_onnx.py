"""Export a recognizer: see ``--help``."""

from polynl_mm.commands.export_onnx import main

if __name__ == "__main__":
    main()
