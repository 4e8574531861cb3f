"""One clip over several ranks, each holding its own frames, with the same result."""
