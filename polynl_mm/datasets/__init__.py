"""Datasets made, read and checked."""

from polynl_mm.datasets.ceiling_views import (
    EightSymmetries,
    RandomQuarterTurn,
    RandomShift,
)
from polynl_mm.datasets.decoding.bad_videos import BadVideosHook
from polynl_mm.datasets.decoding.surviving_decode import SurvivingDecode

__all__ = [
    "BadVideosHook",
    "EightSymmetries",
    "RandomQuarterTurn",
    "RandomShift",
    "SurvivingDecode",
]
