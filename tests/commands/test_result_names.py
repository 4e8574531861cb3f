import json
import os
from pathlib import Path

import pytest

from polynl_mm.commands import result_names
from polynl_mm.commands.result_names import (
    annotated_copies,
    read_record,
    result_stem,
)
from polynl_mm.user_errors import UserError


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("w").mkdir()
    for name in ("a.mp4", "b.mp4", "a_predicted.mp4", "a_predicted_2.mp4"):
        Path("w", name).write_text(name)
    return tmp_path


@pytest.mark.parametrize(
    ("video", "stem"),
    [("v/x.mp4", "x"), ("x.mkv", "x_mkv"), ("x.b.MP4", "x.b_MP4"), ("x", "x")],
)
def test_videos_of_a_folder_have_names_of_their_own(video, stem):
    assert result_stem(video) == stem


def names(videos, others=()):
    return [copy.name for copy in annotated_copies(videos, "w", others)]


def test_no_copy_is_an_input_or_another_copy(here):
    assert names(["w/a.mp4"]) == ["a_predicted.mp4"]  # of an earlier run
    inputs = ["w/a.mp4", "w/../w/a_predicted.mp4", "a.mp4"]
    assert names(inputs) == [
        "a_predicted_2.mp4", "a_predicted_predicted.mp4", "a_predicted_3.mp4",
    ]  # fmt: skip
    os.link("w/a_predicted.mp4", "b.mp4")  # another name of what is read
    assert names(["w/a.mp4", "b.mp4"])[0] == "a_predicted_2.mp4"
    assert names(["w/b.mp4"], ["w/b_predicted.mp4", None]) == ["b_predicted_2.mp4"]


def test_record_may_be_replaced_by_one_of_its_video(here):
    record = Path("w/a.json")
    assert read_record(record, "w/a.mp4") is None
    record.write_text("{")
    assert read_record(record, "w/a.mp4") is None
    Path("copy").mkdir()
    Path("copy/a.mp4").write_text("a.mp4")
    for named in ("w/a.mp4", str(here / "w/a.mp4"), "gone/a.mp4", "copy/a.mp4"):
        record.write_text(json.dumps({"video": named}))
        assert read_record(record, "./w/a.mp4") == {"video": named}


def test_video_of_the_same_name_and_another_size_is_another(here):
    Path("other").mkdir()
    Path("other/a.mp4").write_text("of another day")
    Path("w/a.json").write_text(json.dumps({"video": "other/a.mp4"}))
    with pytest.raises(UserError, match=r"result of other/a\.mp4, not of w/a\.mp4"):
        read_record(Path("w/a.json"), "w/a.mp4")


def test_many_videos_of_one_name_are_named_at_once(here, monkeypatch):
    asked = []
    monkeypatch.setattr(
        result_names, "place_of", lambda path: asked.append(path) or str(path)
    )
    videos = [f"{number}/video.mp4" for number in range(300)]
    assert len(set(names(videos))) == 300
    assert len(asked) <= 4 * 300


@pytest.mark.parametrize(
    "content",
    [{"video": "w/b.mp4"}, {"video": "gone/b.mp4"}, {"video": 5}, {}, [], "w/a.mp4"],
)
def test_record_of_another_video_is_kept(here, content):
    record = Path("w/a.json")
    record.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"not of w/a\.mp4; give another --out-dir, or"):
        read_record(record, "w/a.mp4")
