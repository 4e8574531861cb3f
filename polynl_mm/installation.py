"""Where the configs and tools are that the package carries.

In a checkout ``polynl_mm/.mim`` holds links to them; an install holds them there, as
those of the other OpenMMLab packages do.
"""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
CARRIED = PACKAGE / ".mim"
CONFIGS = CARRIED / "configs"
TOOLS = CARRIED / "tools"
_CHECKOUT = PACKAGE.parent


def home() -> Path:
    """Return the folder that data and runs are kept below.

    Returns:
        Path: The checkout; the current folder where the package is installed.
    """
    return _CHECKOUT if (_CHECKOUT / "tools").is_dir() else Path.cwd()
