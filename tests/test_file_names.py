"""Names that are not UTF-8: on old disks and in archives, and of which OpenCV dies."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPO, write_video

from polynl_mm.atomic_files import write_json
from polynl_mm.datasets.annotations import check_datasets
from polynl_mm.datasets.decoding.decord_errors import explain_decord
from polynl_mm.datasets.decoding.surviving_decode import SurvivingDecode
from polynl_mm.datasets.preparation import check_videos, resize_videos, video_lists
from polynl_mm.file_names import printable, utf8_name
from polynl_mm.recognizers.annotated_videos import open_writer
from polynl_mm.recognizers.frames_in_order import FramesInOrder
from polynl_mm.recognizers.traced_clip import trace_clip
from polynl_mm.user_errors import UserError

BAD = os.fsdecode(b"bad\xff.mp4")
# Of OpenCV, those that take a path; each ends the process at a name such as this.
OF_OPENCV = ("VideoCapture", "VideoWriter", "imread", "imwrite")


@pytest.fixture
def bad(tmp_path) -> Path:
    write_video(tmp_path / "good.mp4")
    try:
        shutil.copyfile(tmp_path / "good.mp4", tmp_path / BAD)
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    return tmp_path / BAD


def test_opencv_gets_utf8_names_only():
    calls = 0
    for file in (REPO / "polynl_mm").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            if getattr(node.func, "attr", None) in OF_OPENCV:
                calls += 1
                path = ast.unparse(node.args[0])
                assert path.startswith("utf8_name("), f"{file.name}: {path}"
    assert calls >= 8


def test_names():
    assert printable(BAD) == "bad\\xff.mp4"
    assert utf8_name(Path("ä b.mp4")) == printable("ä b.mp4") == "ä b.mp4"


DECODE = [dict(type="DecordInit"), dict(type="DecordDecode")]
READERS = {
    "decode": lambda path: trace_clip(path, DECODE, "a.py"),
    "in order": FramesInOrder,
    "writer": lambda path: open_writer(Path(path), 10, (64, 64)),
    "codec": lambda path: explain_decord(ValueError("(-1128613112 vs"), path),
    "list": lambda path: video_lists.write_video_list("list.txt", [(path, 0)], " "),
}


@pytest.mark.parametrize("kind", READERS)
def test_one_sentence_with_the_name(bad, kind):
    with pytest.raises(UserError, match=r"bad\\xff\.mp4 has a name that is not UTF-8"):
        READERS[kind](str(bad))


@pytest.mark.parametrize("reader", ["DecordInit", "OpenCVInit"])
def test_training_survives_such_files(bad, reader):
    from mmaction.utils import register_all_modules

    register_all_modules()
    steps = [dict(type=reader), *DECODE[1:]]
    with pytest.raises(UserError, match="not UTF-8"):
        SurvivingDecode(steps)({"filename": str(bad), "sample_idx": 0})


def test_folders_of_a_dataset(tmp_path):
    folder = tmp_path / os.fsdecode(b"v\xff")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    (tmp_path / "list.txt").write_text("a.mp4 0\n")
    dataset = dict(type="VideoDataset", ann_file=str(tmp_path / "list.txt"))
    dataset["data_prefix"] = dict(video=str(folder))
    with pytest.raises(UserError, match=r"v\\xff has a name that is not UTF-8"):
        check_datasets(dict(train_dataloader=dict(dataset=dataset)), ("train",))


def test_checking_of_videos(bad):
    state = check_videos.check_video(str(bad))
    assert state.problem == "unreadable" and "not UTF-8" in state.reason


def test_failures_of_resizing_are_listed(bad, tmp_path):
    pytest.importorskip("av", reason="videos are resized by PyAV")
    bad.write_bytes(b"no video")
    target = tmp_path.with_name(f"{tmp_path.name}_small")
    parameters = resize_videos.ResizeParameters(short_side=32)
    _, complete = resize_videos.resize_videos(tmp_path, target, parameters)
    assert not complete
    assert "bad\\xff.mp4: " in (target / resize_videos.FAILURES_FILE).read_text("utf-8")


def test_such_names_are_printed_and_written(tmp_path):
    write_json(tmp_path / "a.json", {"video": BAD})
    program = (
        "from polynl_mm.user_errors import user_errors\n"
        "with user_errors():\n"
        f"    print({BAD!a})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        timeout=200,
        check=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii:strict"},
    )
    assert done.stdout.decode() == "bad\\udcff.mp4\n"
