"""Global space-time context for MMAction2's video backbones, at linear cost."""

__version__ = "0.1.0"
