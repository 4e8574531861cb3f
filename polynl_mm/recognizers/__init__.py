"""From a config and a checkpoint to a model that runs."""

from polynl_mm.recognizers import model_match  # noqa: F401  (registers its hook)
