"""Keeps the many configs that these tests load from taking long."""

import functools

import pytest


@pytest.fixture(scope="session", autouse=True)
def index_of_mmaction2_is_read_once():
    """MMEngine reads the index of all models anew for every inherited config."""
    from mmengine.config import utils

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "load", functools.cache(utils.load))
        yield
