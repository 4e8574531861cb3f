"""Global space-time context for MMAction2's video backbones, at linear cost.

Importing this package registers every plugin, ``WithPlugins``, and what lets a run
survive bad videos in MMEngine's root registries. MMAction2 itself is only imported when
one of its backbones is built.
"""

__version__ = "0.1.0"

from polynl_mm.stack import check_requirements, install

# First of all: what follows imports the packages that are checked here.
check_requirements()
install()

from polynl_mm import recognizers  # noqa: F401  (registers its hook)
from polynl_mm.backbones import WithPlugins, accelerate_non_local, insert_plugins
from polynl_mm.datasets import BadVideosHook, SurvivingDecode
from polynl_mm.plugins import (
    CompactGeneralizedNL2d,
    CompactGeneralizedNL3d,
    CrissCross2d,
    CrissCross3d,
    DoubleAttention2d,
    DoubleAttention3d,
    EfficientAttention2d,
    EfficientAttention3d,
    GlobalContext2d,
    GlobalContext3d,
    NonLocalBlock2d,
    NonLocalBlock3d,
    NonLocalStage2d,
    NonLocalStage3d,
    Plugin,
    PolyNL2d,
    PolyNL3d,
    PyramidNL2d,
    PyramidNL3d,
    SpectralNL2d,
    SpectralNL3d,
)

__all__ = [
    "BadVideosHook",
    "CompactGeneralizedNL2d",
    "CompactGeneralizedNL3d",
    "CrissCross2d",
    "CrissCross3d",
    "DoubleAttention2d",
    "DoubleAttention3d",
    "EfficientAttention2d",
    "EfficientAttention3d",
    "GlobalContext2d",
    "GlobalContext3d",
    "NonLocalBlock2d",
    "NonLocalBlock3d",
    "NonLocalStage2d",
    "NonLocalStage3d",
    "Plugin",
    "PolyNL2d",
    "PolyNL3d",
    "PyramidNL2d",
    "PyramidNL3d",
    "SpectralNL2d",
    "SpectralNL3d",
    "SurvivingDecode",
    "WithPlugins",
    "accelerate_non_local",
    "insert_plugins",
]
