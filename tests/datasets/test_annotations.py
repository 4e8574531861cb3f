import pytest
from mmengine.config import Config

from polynl_mm.datasets.annotations import check_annotation_line, check_datasets
from polynl_mm.user_errors import UserError


@pytest.fixture
def dataset(tmp_path):
    """Return a function that checks a list of lines: ``dataset(text, **keys)``."""
    (tmp_path / "videos").mkdir()
    for name in ("a.mp4", "b.mp4", "with space.mp4"):
        (tmp_path / "videos" / name).touch()

    def check(text, num_classes=None, **keys):
        if text is not None:
            (tmp_path / "list.txt").write_text(text)
        part = {
            "type": "VideoDataset",
            "data_root": str(tmp_path),
            "ann_file": "list.txt",
            "data_prefix": {"video": "videos"},
            **keys,
        }
        head = {} if num_classes is None else {"num_classes": num_classes}
        check_datasets(
            Config(
                {
                    "train_dataloader": {"dataset": part},
                    "model": {"cls_head": head},
                }
            ),
            ("train", "val"),
        )

    return check


def test_good_lists_pass(dataset):
    dataset("a.mp4 0\nb.mp4 1\n")
    dataset("a 0\nb 1\n")  # DecordInit adds .mp4
    dataset("with space.mp4,1\n", delimiter=",")
    dataset("a.mp4\t1\n", delimiter=None)
    dataset("a.mp4 0 3 5\n", multi_class=True)
    dataset("a.mp4 0\n", type="mmaction.VideoDataset", num_classes=1)


@pytest.mark.parametrize(
    ("text", "keys", "sentence"),
    [
        (None, {}, r"annotation file .*list\.txt \(train_dataloader.* not exist"),
        ("", {}, r"list\.txt is empty"),
        ("\n \n", {}, r"list\.txt is empty"),
        ("a.mp4 0\nb.mp4 x\n", {}, r"list\.txt, line 2 has the label 'x'"),
        ("a.mp4 0\nb.mp4\n", {}, r"list\.txt, line 2 has 1 field where 'path label'"),
        ("a.mp4\n", {"multi_class": True}, "line 1 has 1 field where"),
        ("a.mp4 -1\n", {}, r"list\.txt, line 1 has the label '-1', .* number from 0"),
        ("a.mp4 ²\n", {}, "line 1 has the label"),
        ("a.mp4,0\n", {"delimiter": ["", ""]}, r"dict\(dataset=dict\(delimiter=','"),
        ("a.mp4 0\n\nb.mp4 1\n", {}, r"list\.txt, line 2 is empty"),
        ("a.mp4 0\nwith space.mp4 1\n", {}, r"line 2 has 3 fields.*delimiter=';'"),
        ("a.mp4 4\n", {"num_classes": 4}, r"line 1 has the label 4.*\(labels 0 to 3\)"),
        ("a.mp4 0\n", {"data_prefix": {"video": "vids"}}, "video folder .*vids .*not"),
        ("a.mp4 0\nc.mp4 1\n", {}, r"lists c\.mp4, but .*c\.mp4 does not exist"),
        ("a x 0\n", {"type": "RawframeDataset"}, "video folder"),
    ],
)
def test_bad_ones_are_said(dataset, tmp_path, text, keys, sentence):
    keys = dict(keys)
    if keys.get("type") == "RawframeDataset":
        keys["data_prefix"] = {"img": "nowhere"}
    with pytest.raises(UserError, match=sentence):
        dataset(text, **keys)


def test_wrapped_datasets_are_looked_into(tmp_path):
    inner = {"type": "VideoDataset", "ann_file": str(tmp_path / "none.txt")}
    cfg = Config(
        {"val_dataloader": {"dataset": {"type": "ConcatDataset", "datasets": [inner]}}}
    )
    with pytest.raises(UserError, match=r"val_dataloader.*does not exist"):
        check_datasets(cfg, ("val",))
    check_datasets(cfg, ("train",))


def test_what_is_not_on_a_disk_is_left_alone():
    dataset = {"type": "VideoDataset", "ann_file": "s3://bucket/list.txt"}
    check_datasets(Config({"train_dataloader": {"dataset": dataset}}), ("train",))


@pytest.mark.parametrize(
    ("line", "keys", "sentence"),
    [
        ("folder 10 1", {}, None),
        ("folder 5 10 1", {"with_offset": True}, None),
        ("folder ten 1", {}, "'ten' where a number of frames"),
        ("folder", {}, "1 field where 'folder total_frames label'"),
        ("folder 10", {}, "2 fields where 'folder total_frames label'"),
        ("folder 10 -1", {}, "label '-1'"),
        ("folder 10 " + "1" * 5000, {}, "label '1{40}', which is not"),
        ("folder " + "1" * 5000 + " 1", {}, "has '1{40}' where a number"),
    ],
)
def test_lines_of_frames(line, keys, sentence):
    if sentence is None:
        assert check_annotation_line(line, "RawframeDataset", **keys) == "folder"
    else:
        with pytest.raises(ValueError, match=sentence):
            check_annotation_line(line, "RawframeDataset", **keys)
