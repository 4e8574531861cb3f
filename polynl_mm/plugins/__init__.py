"""The blocks as torch modules, (B, C, *positions) -> same shape.

Importing this package registers each of them in MMEngine's root ``MODELS``.
"""

from polynl_mm.plugins.base import Plugin
from polynl_mm.plugins.non_local import NonLocalBlock2d, NonLocalBlock3d
from polynl_mm.plugins.poly_nl import PolyNL2d, PolyNL3d

__all__ = [
    "NonLocalBlock2d",
    "NonLocalBlock3d",
    "Plugin",
    "PolyNL2d",
    "PolyNL3d",
]
