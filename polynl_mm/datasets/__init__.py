"""Datasets made, read and checked."""
