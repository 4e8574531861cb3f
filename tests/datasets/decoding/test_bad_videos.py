from types import SimpleNamespace

import pytest

from polynl_mm.datasets.decoding.bad_videos import _BadVideos


class Files:
    def __init__(self, paths):
        self.paths = [str(path) for path in paths]

    def __len__(self):
        return len(self.paths)

    def get_data_info(self, index):
        return {"filename": self.paths[index]}


@pytest.fixture
def said():
    return []


@pytest.fixture
def runner(said):
    return SimpleNamespace(logger=SimpleNamespace(warning=said.append))


@pytest.fixture
def start(tmp_path):
    files = [tmp_path / f"{index}.mp4" for index in range(8)]
    for file in files:
        file.write_bytes(b"bad")

    def run(paths=files):
        reports = tmp_path / "reports"
        record = tmp_path / "bad_videos_train.txt"
        return _BadVideos("train", [Files(paths)], str(reports), record)

    return files, tmp_path / "reports", run


def test_each_file_is_said_once(start, runner, said):
    files, reports, run = start
    bad = run()
    bad.gather(runner, "Bad video")
    assert said == []
    reports.write_text(
        f"{files[1]}\tit is a\n{files[2]}\tit is b\n{files[1]}\tit is a\n"
    )
    bad.gather(runner, "Bad video")
    with open(reports, "a") as file:
        file.write(f"{files[2]}\tit is b\n{files[3]}\tit i")  # a worker is writing
    bad.gather(runner, "Bad video")
    assert said == [
        f"Bad video 1 (12.50% of 8): {files[1]}: it is a",
        f"Bad video 2 (25.00% of 8): {files[2]}: it is b",
    ]
    with open(reports, "a") as file:
        file.write("s c\n")
    bad.gather(runner, "Bad video")
    assert said[2:] == [f"Bad video 3 (37.50% of 8): {files[3]}: it is c"]
    assert bad.summary() == "3 of 8 training videos (37.50%)"


def test_resumed_run_knows_what_is_still_bad(start, runner, said):
    files, reports, run = start
    files[4].unlink()
    reports.write_text("".join(f"{file}\tit is a\n" for file in files[1:6]))
    run().gather(runner, "Bad video")
    record = run().file
    with open(record, "a") as file:
        file.write("cut off by a ki")
    files[1].write_bytes(b"mended")
    files[4].write_bytes(b"back")
    bad = run([file for file in files if file != files[2]])
    bad.read()
    assert list(bad.known) == [str(files[3]), str(files[5])]
    assert [line.split("\t")[0] for line in record.read_text().splitlines()] == list(
        bad.known
    )
    said.clear()
    bad.gather(runner, "Bad video")
    assert [line.split(":")[0] for line in said] == [
        "Bad video 3 (42.86% of 7)",
        "Bad video 4 (57.14% of 7)",
        "Bad video 5 (71.43% of 7)",
    ]


def test_new_run_forgets_and_no_record_is_no_error(start):
    _, _, run = start
    bad = run()
    bad.read()
    assert bad.known == {}
    bad.file.write_text("old")
    bad.remove()
    bad.remove()
    assert not bad.file.exists()
