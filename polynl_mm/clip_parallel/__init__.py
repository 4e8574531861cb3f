"""One clip shared over ranks, or read in parts, with exactly the same result."""
