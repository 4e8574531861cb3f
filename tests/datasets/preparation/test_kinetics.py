"""Lists of Kinetics: labels, the names that downloaders write, what is missing."""

import csv
import os
import random

import pytest
from mmengine.config import Config

from polynl_mm.datasets.annotations import check_datasets
from polynl_mm.datasets.preparation.kinetics import main, read_classes, read_clips
from polynl_mm.user_errors import UserError

HEADER = ["label", "youtube_id", "time_start", "time_end", "split"]
NAMES = [
    'saying "hello", twice',
    "passing American football (in game)",
    "massaging person's head",
    "playing cymbals",
]
ROWS = [
    [NAMES[0], "-dashFirst1", "1", "11", "train"],
    [NAMES[1], "under_sco_e", "20", "30", "train"],
    [NAMES[2], "plain_id_01", "107", "117", "train"],
    [NAMES[3], "ends_12_345", "0", "10", "train"],
]


def write_csv(path, rows, header=HEADER, **form):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, **form).writerows([header, *rows])
    return path


@pytest.fixture
def table(tmp_path):
    return write_csv(tmp_path / "train.csv", ROWS)


@pytest.fixture
def videos(tmp_path):
    """Return a function that makes empty files: ``videos("folder/name.mp4")``."""
    folder = tmp_path / "videos"
    folder.mkdir()

    def make(*names):
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        return folder

    return make


def run(table, folder, *options):
    out = table.with_suffix(".txt")
    main(["--csv", str(table), "--videos", str(folder), "--out", str(out), *options])
    return out.read_text(encoding="utf-8").splitlines()


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("Error: ") and said.count("\n") == 1
    return said


def load(ann_file, folder, delimiter):
    from mmaction.datasets import VideoDataset

    part = {
        "ann_file": str(ann_file),
        "data_prefix": {"video": str(folder)},
        "delimiter": delimiter,
        "pipeline": [],
    }
    loaders = {"train_dataloader": {"dataset": {"type": "VideoDataset", **part}}}
    check_datasets(Config(loaders), ("train",))
    return VideoDataset(**part).load_data_list()


@pytest.mark.parametrize("count", [400, 600, 700])
def test_labels_are_the_places_of_the_sorted_names(tmp_path, videos, capsys, count):
    # Zero-padded numbers sort as they count, so the number in a name is its label.
    names = [f'throwing, {i:03d} "times" (person\'s)' for i in range(count)]
    rows = [
        [name, f"{i:03d}_v-{turn}", 3 * i, 3 * i + 10, "train"]
        for i, name in enumerate(names)
        for turn in "ab"
    ]
    random.Random(0).shuffle(rows)
    files = {}
    for number, (name, youtube_id, start, end, _) in enumerate(rows):
        if number % 10:  # a tenth is gone
            path = f"{name}/{youtube_id}_{start:06d}_{end:06d}.mp4"
            files[path] = int(youtube_id[:3])
    folder = videos(*files)
    table = write_csv(tmp_path / "train.csv", rows)
    classes = tmp_path / "classes.txt"
    lines = run(table, folder, "--classes-out", str(classes))
    assert classes.read_text().splitlines() == names
    assert {line.split(";")[0]: int(line.split(";")[1]) for line in lines} == files
    assert len(lines) == len(files) == 2 * count * 9 // 10
    with open(tmp_path / "train_missing.csv", newline="") as file:
        missing = list(csv.reader(file))
    assert missing[0] == HEADER
    assert missing[1:] == [list(map(str, row)) for row in rows[::10]]
    said = capsys.readouterr().out
    assert f"{len(files)} of {2 * count} clips, labels 0 to {count - 1}" in said
    assert f"Missing: {count // 5} clips" in said
    assert "Note" not in said
    assert "train_dataloader = dict(dataset=dict(delimiter=';'))" in said
    loaded = load(table.with_suffix(".txt"), folder, ";")
    assert {x["filename"]: x["label"] for x in loaded} == {
        str(folder / path): label for path, label in files.items()
    }


@pytest.mark.parametrize(
    "paths",
    [
        # id and padded times in folders of classes, with spaces and with underscores
        [
            'saying "hello", twice/-dashFirst1_000001_000011.mp4',
            "passing American football (in game)/under_sco_e_000020_000030.mp4",
            "massaging person's head/plain_id_01_000107_000117.mp4",
            "playing cymbals/ends_12_345_000000_000010.mp4",
        ],
        [
            "saying_hello_twice/-dashFirst1_000001_000011.mp4",
            "passing_American_football_(in_game)/under_sco_e_000020_000030.mkv",
            "massaging_person's_head/plain_id_01_000107_000117.webm",
            "playing_cymbals/ends_12_345_000000_000010.mp4.mkv",
        ],
        # in one folder, in parts, times without zeros or with a point
        [
            "-dashFirst1_000001_000011.mp4",
            "part_2/under_sco_e_20_30.mp4",
            "part_1/deeper/plain_id_01_107.0_117.0.mp4",
            "ends_12_345_0_10.avi",
        ],
        # the id alone
        [
            "-dashFirst1.mp4",
            "passing_american_football_in_game/under_sco_e.mp4",
            "massaging_person_s_head/plain_id_01.MP4",
            "playing cymbals/ends_12_345.mp4",
        ],
    ],
)
def test_names_that_downloaders_write(table, videos, paths):
    folder = videos(*paths, "notes.txt", ".-dashFirst1.part.mp4", "other_id.mp4")
    lines = run(table, folder)
    spaces = any(" " in path for path in paths)
    delimiter = ";" if spaces else " "
    # the labels of the sorted names: massaging, passing, playing, saying
    assert lines == [
        f"{path}{delimiter}{label}"
        for path, label in zip(paths, (3, 1, 0, 2), strict=True)
    ]
    loaded = load(table.with_suffix(".txt"), folder, delimiter)
    assert [x["label"] for x in loaded] == [3, 1, 0, 2]


def test_one_id_with_clips_of_two_classes(tmp_path, videos):
    rows = [
        ["a", "id_of_both", "0", "10", "train"],
        ["b", "id_of_both", "50", "60", "train"],
        ["b", "id_of_both", "50", "60", "train"],  # the same row again
    ]
    table = write_csv(tmp_path / "train.csv", rows)
    folder = videos("a/id_of_both.mp4")
    assert run(table, folder) == ["a/id_of_both.mp4 0"]
    videos("b/id_of_both.mp4")
    assert run(table, folder) == ["a/id_of_both.mp4 0", "b/id_of_both.mp4 1"]
    assert not (tmp_path / "train_missing.csv").exists()
    # times decide before folders do
    videos("a/id_of_both_000050_000060.mp4")
    assert run(table, folder)[1] == "a/id_of_both_000050_000060.mp4 1"
    videos("b/id_of_both_000050_000060.mp4")
    assert run(table, folder)[1] == "b/id_of_both_000050_000060.mp4 1"


def test_a_file_that_stands_for_two_rows_is_said(tmp_path, videos, capsys):
    rows = [["a", "both", "0", "10", "val"], ["b", "both", "50", "60", "val"]]
    table = write_csv(tmp_path / "val.csv", rows)
    assert run(table, videos("flat/both.mp4")) == ["flat/both.mp4 0", "flat/both.mp4 1"]
    said = capsys.readouterr().out
    assert "1 of the files stand for several rows, such as lines 2 and 3" in said


def test_other_columns_a_byte_order_mark_and_windows_line_ends(tmp_path, videos):
    header = ["youtube_id", "time_start", "time_end", "split", "is_cc", "label"]
    rows = [["abc", "1.5", "11.5", "validate", "0", "b"], ["d", "0", "9", "", "1", "a"]]
    path = write_csv(
        tmp_path / "val.csv", rows, header, lineterminator="\r\n", quoting=csv.QUOTE_ALL
    )
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert run(path, videos("abc_000001_000011.mp4")) == ["abc_000001_000011.mp4 1"]
    missing = (tmp_path / "val_missing.csv").read_text().splitlines()
    assert missing == [",".join(header), "d,0,9,,1,a"]


def test_val_gets_the_labels_of_train(table, tmp_path, videos, capsys):
    row = [NAMES[3], "val id", "0", "10", "val"]
    val = write_csv(tmp_path / "val.csv", [row])
    folder = videos("val id_000000_000010.mp4")
    assert run(val, folder) == ["val id_000000_000010.mp4;0"]
    said = capsys.readouterr().out
    assert "Note:" in said and "has 1 classes" in said and "--classes" in said
    assert "val_dataloader = dict(" in said and "test_dataloader = dict(" in said
    assert run(val, folder, "--classes", str(table)) == ["val id_000000_000010.mp4;2"]
    assert "Note" not in capsys.readouterr().out
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(sorted(NAMES, reverse=True)) + "\n")
    assert run(val, folder, "--classes", str(listed)) == ["val id_000000_000010.mp4;1"]
    listed.write_text("playing cymbal\n")
    said = refused(capsys, val, folder, "--classes", str(listed))
    assert "line 2 has the label 'playing cymbals'" in said
    assert "did you mean 'playing cymbal'?" in said
    listed.write_text("a\nb\na\n")
    assert "has 'a' twice" in refused(capsys, val, folder, "--classes", str(listed))


def test_delimiters(table, videos, capsys):
    folder = videos("playing; cymbals/ends_12_345.mp4")
    assert run(table, folder) == ["playing; cymbals/ends_12_345.mp4,2"]
    said = refused(capsys, table, folder, "--delimiter", ";")
    assert "';' occurs in the path" in said
    assert run(table, folder, "--delimiter", "|")[0].endswith("mp4|2")
    assert "delimiter='|'" in capsys.readouterr().out


def test_nothing_found(table, videos, capsys):
    said = refused(capsys, table, videos("else.mp4"))
    assert "None of the 4 clips" in said and "among the 1 videos" in said
    assert "-dashFirst1_000001_000011.mp4 or -dashFirst1.mp4" in said
    assert not table.with_suffix(".txt").exists()
    said = refused(capsys, table, table.parent / "absent")
    assert "does not exist" in said


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("youtube_id,time_start,time_end,split\nabc,0,10,test\n", "no column label"),
        ("abseiling,abc,0,10,train\n", "must begin with the names of its columns"),
        ("label,youtube_id,time_start,time_end\n", "a header and no rows"),
        ("", "is empty"),
        ("label,youtube_id,time_start,time_end\na, b,c,0,10\n", "line 2 has 5 fields"),
        ("label,youtube_id,time_start,time_end\na,b,x,10\n", "time_start 'x'"),
        ("label,youtube_id,time_start,time_end\na,b,nan,10\n", "time_start 'nan'"),
        ("label,youtube_id,time_start,time_end\na,b,10,0\n", "time_end '0'"),
        ("label,youtube_id,time_start,time_end\n,b,0,10\n", "line 2 has no label"),
        ("label,youtube_id,time_start,time_end\na,,0,10\n", "has no youtube_id"),
        (b"\xff\xfe\x00", "is not a text file"),
        (None, "cannot be read"),
    ],
)
def test_malformed_tables(tmp_path, videos, capsys, text, sentence):
    path = tmp_path / "t.csv"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    said = refused(capsys, path, videos("b.mp4"))
    assert sentence in said and "t.csv" in said


def test_number_of_classes_that_must_be_there(table, videos, capsys):
    said = refused(capsys, table, videos("ends_12_345.mp4"), "--num-classes", "400")
    assert "has 4 classes, not the 400" in said


MP4 = b"\0\0\0\x08ftyp\0\0\0\x08moov"
DAMAGES = {"empty": b"", "cut": MP4 + b"\0\1\0\0mdat", "page": b"<html>" * 9}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    "good",
    [
        "replacement_for_corrupted_k400/ends_12_345_000000_000010.mp4",
        "playing cymbals/ends_12_345_000000_000010.MP4",
        "playing cymbals/ends_12_345_0_10.mov",
        "playing_cymbals/ends_12_345.mp4",
    ],
)
def test_of_two_copies_the_good_one_is_listed(table, videos, damage, good):
    bad = "playing cymbals/ends_12_345_000000_000010.mp4"
    folder = videos(bad, good)
    (folder / bad).write_bytes(DAMAGES[damage])
    (folder / good).write_bytes(MP4)
    assert run(table, folder)[0].rpartition(good)[2] in (" 2", ";2")


def test_files_of_other_suffixes_are_named(table, videos, capsys):
    folder = videos("ends_12_345.mp4", "plain_id_01.TS", "b/x.ts", "b/y.gif", "z")
    run(table, folder)
    said = capsys.readouterr().out
    assert "2 .ts (b/x.ts), 1 .gif (b/y.gif), 1 without a suffix (z)" in said
    (folder / "ends_12_345.mp4").unlink()
    assert "2 .ts (b/x.ts)" in refused(capsys, table, folder)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ("a,b,0," + "1" * 5000, "line 2 has time_start '0' and time_end '1{40}' where"),
        ("a,b,1e308,1e309", "two times in seconds"),
        ("a,b,null,", "two times in seconds"),
        ("a," + "b" * 200_000 + ",0,1", "line 2: field larger than"),
        ('"a,b,0,1\n"a,b,0,1', "line end in the label .* quote .* is not closed"),
        ("a,b,0,1,2", "has 5 fields where 4 are expected"),
    ],
    ids=lambda text: text[:20],
)
def test_tables_of_anybody(tmp_path, rows, sentence):
    path = tmp_path / "a.csv"
    path.write_text("label,youtube_id,time_start,time_end\n" + rows + "\n")
    with pytest.raises(UserError, match=rf"a\.csv.*{sentence}") as raised:
        read_clips(path)
    assert len(str(raised.value)) < len(str(path)) + 250


def test_tables_that_are_no_files_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    for read in (read_clips, read_classes):
        for path in (tmp_path / "pipe.csv", "/dev/zero"):
            with pytest.raises(UserError, match="is no regular file"):
                read(path)
    (tmp_path / "classes.txt").write_text("x" * 200_000 + "\n")
    with pytest.raises(UserError, match=r"classes\.txt, line 1: field larger"):
        read_classes(tmp_path / "classes.txt")
