"""What importing polynl_mm registers in MMEngine's root registries.

Every plugin, ``WithPlugins``, and what lets a run survive bad videos; before them, what
mends the stack that they stand on.
"""

# ruff: noqa: E402, F401  (the names that polynl_mm offers)

from polynl_mm.stack import install

install()

from polynl_mm.backbones import WithPlugins, accelerate_non_local, insert_plugins
from polynl_mm.datasets.ceiling_views import (
    EightSymmetries,
    RandomQuarterTurn,
    RandomShift,
)
from polynl_mm.datasets.decoding.bad_videos import BadVideosHook
from polynl_mm.datasets.decoding.surviving_decode import SurvivingDecode
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
from polynl_mm.recognizers import model_match  # registers its hook
