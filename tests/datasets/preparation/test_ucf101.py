"""The lists of UCF-101, from the official ones and from small ones of their form."""

import csv
from pathlib import Path

import pytest

from polynl_mm.datasets.preparation.ucf101 import main

OFFICIAL = Path(__file__).resolve().parents[4] / "shared" / "ucf101_splits"
COUNTS = {1: (9537, 3783), 2: (9586, 3734), 3: (9624, 3696)}
CLASSES = ["Archery", "HandstandPushups", "YoYo"]
# As in the official lists: the class with one capital, its files with two.
TRAIN = [
    "Archery/v_Archery_g08_c01.avi 1",
    "HandstandPushups/v_HandStandPushups_g08_c01.avi 2",
    "YoYo/v_YoYo_g08_c01.avi 3",
]
TEST = [
    "Archery/v_Archery_g01_c01.avi",
    "HandstandPushups/v_HandStandPushups_g01_c01.avi",
    "YoYo/v_YoYo_g01_c01.avi",
]


@pytest.fixture
def splits(tmp_path):
    """A folder of official lists of three classes, with the line ends of Windows."""
    folder = tmp_path / "splits"
    folder.mkdir()
    numbered = [f"{number} {name}" for number, name in enumerate(CLASSES, 1)]
    files = {"classInd.txt": numbered}
    for number in (1, 2, 3):
        files[f"trainlist0{number}.txt"] = TRAIN
        files[f"testlist0{number}.txt"] = TEST
    for name, lines in files.items():
        (folder / name).write_bytes(b"".join(f"{x}\r\n".encode() for x in lines))
    return folder


def read(out, part, number):
    return (out / f"ucf101_{part}_split_{number}_videos.txt").read_text().splitlines()


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main([*map(str, arguments)])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("Error: ") and said.count("\n") == 1
    return said


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason="needs ../shared/ucf101_splits")
def test_counts_and_labels_of_the_official_lists(tmp_path, capsys):
    main(["--splits", str(OFFICIAL), "--out", str(tmp_path)])
    classes = (tmp_path / "ucf101_classes.txt").read_text().splitlines()
    assert len(classes) == 101 and classes[0] == "ApplyEyeMakeup"
    for number, counts in COUNTS.items():
        train, val = read(tmp_path, "train", number), read(tmp_path, "val", number)
        assert (len(train), len(val)) == counts
        for lines in (train, val):
            assert {int(line.split(" ")[1]) for line in lines} == set(range(101))
        paths = {line.split(" ")[0] for line in train + val}
        assert len(paths) == 13320  # each video is in one of the two
        for line in train + val:
            path, label = line.split(" ")
            assert path.split("/")[0] == classes[int(label)]
        assert "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi 0" in train + val
    assert "9624 videos" in capsys.readouterr().out


def test_official_names_without_videos(splits, tmp_path):
    main(["--splits", str(splits), "--out", str(tmp_path / "out")])
    for number in (1, 2, 3):
        assert read(tmp_path / "out", "train", number) == [
            "Archery/v_Archery_g08_c01.avi 0",
            "HandstandPushups/v_HandStandPushups_g08_c01.avi 1",
            "YoYo/v_YoYo_g08_c01.avi 2",
        ]
    inner = splits.rename(tmp_path / "ucfTrainTestlist")  # as the archive unpacks
    main(["--splits", str(inner.parent), "--out", str(tmp_path / "again")])
    assert read(tmp_path / "again", "val", 3) == read(tmp_path / "out", "val", 3)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("HandstandPushups", "v_HandStandPushups_g01_c01.avi"),
        ("HandStandPushups", "v_HandStandPushups_g01_c01.avi"),
        ("HandStandPushups", "v_HandstandPushups_g01_c01.mp4"),
        ("UCF-101/HandstandPushups", "v_HandstandPushups_g01_c01.AVI"),
        (".", "v_HandStandPushups_g01_c01.avi"),
    ],
)
def test_videos_under_either_spelling_and_what_is_missing(
    splits, tmp_path, capsys, folder, name
):
    videos, out = tmp_path / "videos", tmp_path / "out"
    for path in [*TRAIN, *TEST]:
        path = videos / path.split(" ")[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        if "HandStand" not in path.name and path.name != "v_YoYo_g01_c01.avi":
            path.touch()
    (videos / folder).mkdir(parents=True, exist_ok=True)
    (videos / folder / name).touch()
    arguments = ["--splits", splits, "--videos", videos, "--out", out]
    main([*map(str, arguments)])
    written = f"{folder}/{name}".removeprefix("./")
    assert read(out, "val", 1) == ["Archery/v_Archery_g01_c01.avi 0", f"{written} 1"]
    said = capsys.readouterr().out
    assert "val_split_1_videos.txt: 2 of 3 videos" in said
    assert "Missing: 2 of the listed videos" in said
    with open(out / "ucf101_missing.csv", newline="") as file:
        missing = list(csv.DictReader(file))
    assert sorted((row["video"], row["label"]) for row in missing) == [
        ("HandstandPushups/v_HandStandPushups_g08_c01.avi", "1"),
        ("YoYo/v_YoYo_g01_c01.avi", "2"),
    ]
    said = refused(capsys, *arguments, "--require-all")
    assert "2 listed videos are not below" in said


def test_the_listed_name_goes_first(splits, tmp_path):
    videos, out = tmp_path / "videos", tmp_path / "out"
    for path in [*TRAIN, *TEST]:
        path = videos / path.split(" ")[0]
        for found in (path, path.with_suffix(".mp4"), videos / "a" / path.name):
            found.parent.mkdir(parents=True, exist_ok=True)
            found.touch()
    main(["--splits", str(splits), "--videos", str(videos), "--out", str(out)])
    assert [line.split(" ")[0] for line in read(out, "val", 2)] == TEST
    assert not (out / "ucf101_missing.csv").exists()


def test_delimiter_of_the_lists(splits, tmp_path, capsys):
    main(["--splits", str(splits), "--out", str(tmp_path), "--delimiter", ","])
    assert read(tmp_path, "train", 1)[0].endswith("v_Archery_g08_c01.avi,0")
    assert "delimiter=','" in capsys.readouterr().out


def test_one_split_is_enough_if_asked_for(splits, tmp_path, capsys):
    (splits / "testlist02.txt").unlink()
    arguments = ["--splits", splits, "--out", tmp_path / "out"]
    assert "testlist02.txt does not exist" in refused(capsys, *arguments)
    assert not (tmp_path / "out").exists()
    main([*map(str, arguments), "--split", "1"])
    assert len(list((tmp_path / "out").glob("ucf101_*_split_*"))) == 2


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("classInd.txt", "1 Archery\n1 YoYo\n", "line 2 has the number 1 again"),
        ("classInd.txt", "2 Archery\n3 YoYo\n", "numbers go from 2 to 3"),
        ("classInd.txt", "Archery\n", "line 1 is 'Archery' where a number"),
        ("classInd.txt", "", "is empty"),
        ("trainlist01.txt", "Archery/a.avi 2\n", "the number 2, but classInd.txt"),
        ("testlist01.txt", "Archry/a.avi\n", "did you mean 'Archery'?"),
        ("testlist01.txt", "\n../../a.avi\n", "line 2 is '../../a.avi' where"),
        ("testlist01.txt", "Archery/a b.avi\n", "line 1 is"),
    ],
)
def test_malformed_lists(splits, tmp_path, capsys, name, text, sentence):
    (splits / name).write_text(text)
    said = refused(capsys, "--splits", splits, "--out", tmp_path / "out")
    assert sentence in said and name in said
    assert not (tmp_path / "out").exists()


def test_folders_that_cannot_work(splits, tmp_path, capsys):
    arguments = ["--splits", splits, "--out", tmp_path / "out", "--videos"]
    (tmp_path / "videos").mkdir()
    said = refused(capsys, *arguments, tmp_path / "videos")
    assert "None of the 6 listed videos" in said and "v_Archery_g08_c01.avi" in said
    assert "does not exist" in refused(capsys, *arguments, tmp_path / "absent")
    assert "is not a folder" in refused(capsys, *arguments, splits / "classInd.txt")
    said = refused(capsys, "--splits", tmp_path / "absent", "--out", tmp_path)
    assert "official lists" in said
    said = refused(capsys, "--splits", splits, "--out", splits / "classInd.txt")
    assert "is no folder" in said


@pytest.mark.parametrize("content", [b"", b"RIFF\xff\0\0\0AVI LIST", b"<html>" * 9])
@pytest.mark.parametrize(
    "good", ["Archery/v_Archery_g08_c01.mp4", "archery/v_archery_G08_c01.AVI"]
)
def test_of_two_copies_the_good_one_is_listed(splits, tmp_path, content, good):
    videos, out = tmp_path / "videos", tmp_path / "out"
    for path, written in (
        (TRAIN[0].split(" ")[0], content),
        (good, b"RIFF\4\0\0\0AVI "),
    ):
        (videos / path).parent.mkdir(parents=True, exist_ok=True)
        (videos / path).write_bytes(written)
    (videos / TEST[0]).touch()
    (videos / "other.ogv").touch()
    main(["--splits", str(splits), "--videos", str(videos), "--out", str(out)])
    assert read(out, "train", 1) == [f"{good} 0"]
