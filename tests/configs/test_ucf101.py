"""The fine-tuning configs: their lists, their start, their learning rate."""

import functools
import re
from pathlib import Path

import pytest
from mmengine.config import Config

from polynl_mm.experiments.config_tables import published_results

FOLDER = Path(__file__).parents[2] / "configs" / "ucf101"
CONFIGS = sorted(path.name for path in FOLDER.glob("*.py"))


@functools.cache
def load(name):
    return Config.fromfile(FOLDER / name)


def test_every_model_has_every_block_and_split():
    models = {re.sub(r"-r50.*", "", name) for name in CONFIGS}
    assert len(models) == 3
    for model in models:
        for block in ("", "-polynl", "-nl-embedded-gaussian", "-spectralnl"):
            of_block = [n for n in CONFIGS if n.startswith(f"{model}-r50{block}_")]
            splits = [re.search(r"split(\d)", name)[1] for name in of_block]
            assert splits == ["1", "2", "3"]


@pytest.mark.parametrize("name", CONFIGS)
def test_lists_are_those_of_the_split(name):
    config = load(name)
    split = re.search(r"split(\d)", name)[1]
    for loader, part in (
        (config.train_dataloader, "train"),
        (config.val_dataloader, "val"),
        (config.test_dataloader, "val"),
    ):
        assert (
            loader.dataset.ann_file
            == f"data/ucf101/ucf101_{part}_split_{split}_videos.txt"
        )
        assert loader.dataset.data_prefix.video == "data/ucf101/videos"
    assert config.model.cls_head.num_classes == 101


@pytest.mark.parametrize("name", [n for n in CONFIGS if "split1" not in n])
def test_splits_differ_in_their_lists(name):
    other, first = load(name), load(re.sub(r"split\d", "split1", name))
    other = re.sub(r"(_split_)\d", r"\g<1>1", str(other.to_dict()))
    assert other == str(first.to_dict())


@pytest.mark.parametrize("name", [n for n in CONFIGS if "split1" in n])
def test_starts_from_the_published_weights_at_a_rate_that_holds(name):
    config = load(name)
    base = published_results(name.split("_")[0])[0]
    assert config.load_from == base.weights
    assert config.model.backbone.pretrained is None
    # Non-local networks have been seen to collapse at 0.01.
    assert config.optim_wrapper.optimizer.lr <= 0.001
