"""Global space-time context for MMAction2's video backbones, at linear cost.

Importing this package registers every plugin and ``WithPlugins`` in MMEngine's root
registry. MMAction2 itself is only imported when one of its backbones is built.
"""

__version__ = "0.1.0"

from polynl_mm.runtime import check_requirements, install

# First of all: what follows imports the packages that are checked here.
check_requirements()
install()

from polynl_mm.backbones import WithPlugins, insert_plugins
from polynl_mm.plugins import (
    NonLocalBlock2d,
    NonLocalBlock3d,
    Plugin,
    PolyNL2d,
    PolyNL3d,
)

__all__ = [
    "NonLocalBlock2d",
    "NonLocalBlock3d",
    "Plugin",
    "PolyNL2d",
    "PolyNL3d",
    "WithPlugins",
    "insert_plugins",
]
