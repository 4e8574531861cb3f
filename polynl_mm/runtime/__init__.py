"""Living with MMEngine: compatibility, safe checkpoints, process groups."""
