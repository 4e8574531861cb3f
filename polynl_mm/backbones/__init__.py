"""Putting plugins into a backbone."""

from polynl_mm.backbones.with_plugins import WithPlugins, insert_plugins

__all__ = ["WithPlugins", "insert_plugins"]
