"""The blocks as torch modules, (B, C, *positions) -> same shape."""
