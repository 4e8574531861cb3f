"""Datasets made, read and checked."""

from polynl_mm.datasets.bad_videos import BadVideosHook
from polynl_mm.datasets.surviving_decode import SurvivingDecode

__all__ = ["BadVideosHook", "SurvivingDecode"]
