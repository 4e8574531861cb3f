"""The Nagoya FIR actions, from a clone and from the file that the tests have."""

import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from polynl_mm.datasets.preparation import nagoya_fir
from polynl_mm.datasets.preparation.nagoya_fir import (
    CLASSES,
    main,
    open_archive,
    open_clone,
    to_grey,
)
from polynl_mm.user_errors import UserError

SHARED = Path(__file__).resolve().parents[4] / "shared" / "nagoya_fir"
NAME = "20170203_p1_light1.csv"


def make_clone(folder, lines, recordings):
    """Write a clone: the lines of an annotation, and temperatures by recording."""
    (folder / "annotation").mkdir(parents=True)
    (folder / "annotation" / "annotation_20170203_human.csv").write_text(lines)
    (folder / "20170203" / "raw").mkdir(parents=True)
    for name, frames in recordings.items():
        head = "2017/02/03 17:20:44\nTime (sec),PTAT," + ",".join(
            f"P{i:03}" for i in range(256)
        )
        rows = [
            ",".join(f"{x:.4f}" for x in [i / 10, 20.0, *frame.ravel()])
            for i, frame in enumerate(frames)
        ]
        (folder / "20170203" / "raw" / name).write_text("\n".join([head, *rows]) + "\n")
    return folder


@pytest.fixture
def warm():
    """A room of 20 degrees, and one warm pixel that walks along its first row."""
    frames = np.full((12, 16, 16), 20.0)
    for t in range(12):
        frames[t, 0, t] = 25.0
    return frames


LINES = "a.csv,2,5,walk1,human1\na.csv,4,6,sit,human4\nb.csv,0,3,falling2,human9\n"


def test_frames_and_lists_of_a_clone(tmp_path, warm, capsys):
    clone = make_clone(tmp_path / "clone", LINES, {"a.csv": warm, "b.csv": warm})
    out = tmp_path / "out"
    main([str(clone), "--out", str(out)])
    assert "3 clips of 3 people" in capsys.readouterr().out
    frames = sorted((out / "frames" / "a_2_1").iterdir())
    assert [f.name for f in frames] == [f"img_0000{i}.png" for i in (1, 2, 3, 4)]
    first = cv2.imread(str(frames[0]), cv2.IMREAD_UNCHANGED)
    expected = np.full((16, 16), 128, np.uint8)
    expected[0, 2] = 128 + 5 * nagoya_fir.PER_DEGREE  # five degrees above the room
    np.testing.assert_array_equal(first, expected)
    assert (out / "person1_test.txt").read_text() == "a_2_1 4 0\n"
    assert (out / "person1_train.txt").read_text() == "a_4_4 3 4\nb_0_9 4 3\n"
    assert (out / "three2_test.txt").read_text() == "a_4_4 3 4\n"
    assert (out / "classes.txt").read_text().split() == list(CLASSES)
    assert "CC BY-NC-SA" in (out / "ATTRIBUTION.txt").read_text()
    before = frames[0].stat().st_mtime_ns
    shutil.rmtree(out / "frames" / "b_0_9")
    main([str(clone), "--out", str(out)])
    assert frames[0].stat().st_mtime_ns == before
    assert (out / "frames" / "b_0_9").is_dir()


def test_values_far_from_the_room_are_cut_off():
    grey = to_grey(np.array([20.0, 20.0, 20.0, 60.0, -30.0]).reshape(5, 1, 1))
    assert grey.ravel().tolist() == [128, 128, 128, 255, 0]


@pytest.mark.parametrize(
    ("lines", "change", "sentence"),
    [
        ("c.csv,0,1,walk,human1\n", None, "lacks 1 of the recordings.*c.csv"),
        ("a.csv,0,1,dance,human1\n", None, "line 1: a line is.*not 'a.csv,0,1,dance"),
        ("a.csv,5,1,walk,human1\n", None, "line 1: a line is"),
        ("a.csv,0,1,walk,human12\n", None, "line 1: a line is"),
        ("a.csv,0,99,walk,human1\n", None, "a.csv is cut short: it has 12 frames"),
        ("a.csv,0,1,walk,human1\n", "1,2,3\n", "a.csv is damaged"),
        ("a.csv,0,1,walk,human1\n", "x", "a.csv is damaged"),
    ],
)
def test_damage_is_named(tmp_path, warm, capsys, lines, change, sentence):
    clone = make_clone(tmp_path / "clone", lines, {"a.csv": warm})
    if change:
        with open(clone / "20170203/raw/a.csv", "a") as file:
            file.write(change)
    with pytest.raises(SystemExit):
        main([str(clone), "--out", str(tmp_path / "out")])
    assert re.search(sentence, capsys.readouterr().err)
    assert not (tmp_path / "out" / "person1_test.txt").exists()


def test_folder_that_is_no_clone(tmp_path):
    with pytest.raises(UserError, match=r"no annotation_\*_human\.csv"):
        open_clone(tmp_path)


@pytest.fixture
def archive():
    if not SHARED.is_dir():
        pytest.skip("the data set (../shared/nagoya_fir) is not on this machine")
    return SHARED / "sequences_int16_x320.npz"


def test_counts_of_the_data_set(archive):
    clips, _ = open_archive(archive)
    counted = [sum(c.label == label for c in clips) for label in range(5)]
    assert counted == [360, 360, 360, 360, 1080] and len(clips) == 2520
    for person in range(1, 10):
        assert sum(c.person == person for c in clips) == 280
    lengths = [c.last - c.first + 1 for c in clips]
    assert min(lengths) == 6 and max(lengths) == 49
    assert np.mean(lengths) == pytest.approx(22.8, abs=0.1)
    assert len({c.name for c in clips}) == 2520


def test_clone_and_archive_hold_the_same(archive, tmp_path):
    lines = (SHARED / "annotation/annotation_20170203_human.csv").read_text()
    own = "".join(x + "\n" for x in lines.splitlines() if x.startswith(NAME))
    shutil.copytree(SHARED / "clone_sample", tmp_path / "clone")
    (tmp_path / "clone").chmod(0o755)
    (tmp_path / "clone/annotation").mkdir()
    (tmp_path / "clone/annotation/annotation_20170203_human.csv").write_text(own)
    clips, read = open_clone(tmp_path / "clone")
    of_archive, read_archive = open_archive(archive)
    assert clips == [c for c in of_archive if c.recording == NAME]
    np.testing.assert_allclose(read(NAME), read_archive(NAME), atol=0.0017)


def test_mmaction2_reads_it(tmp_path, warm):
    from mmaction.datasets import RawframeDataset
    from mmaction.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    clone = make_clone(tmp_path / "clone", LINES, {"a.csv": warm, "b.csv": warm})
    out = tmp_path / "out"
    main([str(clone), "--out", str(out)])
    dataset = RawframeDataset(
        ann_file=str(out / "person1_train.txt"),
        data_prefix=dict(img=str(out / "frames")),
        filename_tmpl=nagoya_fir.TEMPLATE,
        pipeline=[
            dict(type="SampleFrames", clip_len=3, num_clips=1, test_mode=True),
            dict(type="RawFrameDecode"),
            dict(type="FormatShape", input_format="NCTHW"),
            dict(type="PackActionInputs"),
        ],
    )
    assert [tuple(dataset[i]["inputs"].shape) for i in range(2)] == [
        (1, 3, 3, 16, 16)
    ] * 2
