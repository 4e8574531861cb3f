"""From a config and a checkpoint to a model that runs."""
