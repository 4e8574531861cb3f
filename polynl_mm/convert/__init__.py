"""Checkpoints of other code and other blocks, brought to this package's key names."""
