"""The blocks as torch modules, (B, C, *positions) -> same shape.

Importing this package registers each of them in MMEngine's root ``MODELS``.
"""

from polynl_mm.plugins.base import Plugin
from polynl_mm.plugins.compact_generalized_nl import (
    CompactGeneralizedNL2d,
    CompactGeneralizedNL3d,
)
from polynl_mm.plugins.criss_cross import CrissCross2d, CrissCross3d
from polynl_mm.plugins.double_attention import DoubleAttention2d, DoubleAttention3d
from polynl_mm.plugins.efficient_attention import (
    EfficientAttention2d,
    EfficientAttention3d,
)
from polynl_mm.plugins.global_context import GlobalContext2d, GlobalContext3d
from polynl_mm.plugins.non_local import NonLocalBlock2d, NonLocalBlock3d
from polynl_mm.plugins.non_local_stage import NonLocalStage2d, NonLocalStage3d
from polynl_mm.plugins.pointwise import Pointwise2d, Pointwise3d
from polynl_mm.plugins.poly_nl import PolyNL2d, PolyNL3d
from polynl_mm.plugins.pyramid_nl import PyramidNL2d, PyramidNL3d
from polynl_mm.plugins.spectral_nl import SpectralNL2d, SpectralNL3d

__all__ = [
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
    "Pointwise2d",
    "Pointwise3d",
    "PolyNL2d",
    "PolyNL3d",
    "PyramidNL2d",
    "PyramidNL3d",
    "SpectralNL2d",
    "SpectralNL3d",
]
