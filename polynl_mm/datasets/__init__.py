"""Datasets made, read and checked."""

SPLITS = ("train", "val", "test")
