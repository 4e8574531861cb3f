"""Variables changed after MMEngine copied them are carried, or refused by name."""

import pytest

from polynl_mm.recognizers.configs import load_config
from polynl_mm.user_errors import UserError

BASE = """
root = 'data/videos'
lists = root + '/lists'
fold = 'split1'
width = 8
size = dict(height=4, width=8)
train_pipeline = [dict(type='Resize', scale=(8, 8)), dict(type='Flip')]
val_pipeline = [dict(type='Resize', scale=(4, 4))]
same_as_val = [dict(type='Resize', scale=(4, 4))]
train_dataloader = dict(batch_size=width, dataset=dict(
    pipeline=train_pipeline, prefix=root, fold_file='in/' + fold + '.txt',
    ann_file=lists + '/train.txt'))
val_dataloader = dict(dataset=dict(pipeline=val_pipeline))
"""


@pytest.fixture
def read(tmp_path):
    (tmp_path / "base.py").write_text(BASE)

    def load(child="", **options):
        (tmp_path / "child.py").write_text("_base_ = 'base.py'\n" + child)
        options = {key.replace("__", "."): value for key, value in options.items()}
        return load_config(str(tmp_path / "child.py"), options)

    return load


def test_options_reach_what_was_copied(read):
    cfg = read(train_pipeline__0__scale=(2, 2))
    assert cfg.train_dataloader.dataset.pipeline[0].scale == (2, 2)
    assert cfg.train_dataloader.dataset.pipeline[1].type == "Flip"
    cfg = read(train_pipeline=[dict(type="Flip")], train_dataloader__batch_size=2)
    assert cfg.train_dataloader.dataset.pipeline == [dict(type="Flip")]
    assert cfg.train_dataloader.batch_size == 2


def test_both_the_variable_and_its_copy(read):
    cfg = read(
        train_dataloader__dataset__pipeline__1__type="Crop",
        train_pipeline__0__scale=(2, 2),
    )
    steps = cfg.train_dataloader.dataset.pipeline
    assert (steps[0].scale, steps[1].type) == ((2, 2), "Crop")


@pytest.mark.parametrize(
    ("option", "key"),
    [
        (
            dict(val_pipeline__0__scale=(2, 2)),
            "val_dataloader.dataset.pipeline.0.scale",
        ),
        (dict(fold="split2"), "train_dataloader.dataset.fold_file"),
        (dict(width=4), "change what you mean itself"),
        (dict(size__width=4), "change what you mean itself"),
    ],
    ids=["two_of_one_value", "part_of_a_text", "number", "used_nowhere"],
)
def test_options_that_cannot_be_carried_name_the_key(read, option, key):
    with pytest.raises(UserError, match="would change nothing for certain") as error:
        read(**option)
    assert key in str(error.value)


def test_child_whose_variable_changes_nothing(read):
    with pytest.raises(UserError, match=r"child\.py sets train_pipeline, but train_da"):
        read("train_pipeline = [dict(type='Flip')]\n")
    with pytest.raises(UserError, match=r"set train_dataloader\.dataset\.prefix, too"):
        read("root = 'elsewhere'\n")


def test_child_that_carries_its_variable_on(read):
    cfg = read(
        "train_pipeline = [dict(type='Flip')]\n"
        "train_dataloader = dict(dataset=dict(pipeline=train_pipeline))\n"
    )
    assert cfg.train_dataloader.dataset.pipeline == [dict(type="Flip")]
    assert read("new = 3\nwidth = 8\n").new == 3


def test_paths_below_a_changed_folder_follow(read):
    cfg = read(root="/elsewhere")
    dataset = cfg.train_dataloader.dataset
    assert dataset.prefix == "/elsewhere"
    assert dataset.ann_file == "/elsewhere/lists/train.txt"


def test_child_that_moves_a_folder_names_the_paths_below_it(read):
    with pytest.raises(UserError, match=r"train_dataloader\.dataset\.ann_file"):
        read(
            "root = '/elsewhere'\ntrain_dataloader = dict(dataset=dict(prefix=root))\n"
        )
