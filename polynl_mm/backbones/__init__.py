"""Putting plugins into a backbone."""

from polynl_mm.backbones.accelerate import accelerate_non_local
from polynl_mm.backbones.with_plugins import WithPlugins, insert_plugins

__all__ = ["WithPlugins", "accelerate_non_local", "insert_plugins"]
