import errno
import json
import os
import shutil
from pathlib import Path

import mmengine
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import save_checkpoint

from polynl_mm.atomic_files import (
    UnwritableError,
    expect_outputs,
    renamed_when_complete,
    write_json,
)
from polynl_mm.recognizers.state_dicts import write_checkpoint
from polynl_mm.user_errors import UserError


def test_failure_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), renamed_when_complete(tmp_path / "a.txt") as part:
        part.write_text("half")
        raise RuntimeError
    assert os.listdir(tmp_path) == []


def test_json_holds_numpy_numbers(tmp_path):
    write_json(tmp_path / "m.json", {"acc": np.float32(0.5), "list": np.arange(2)})
    assert json.loads((tmp_path / "m.json").read_text()) == {
        "acc": 0.5,
        "list": [0, 1],
    }


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def make_bad_targets(folder):
    """Return what cannot be written below a folder, and what is said of it."""
    (folder / "file").write_text("kept")
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    return {
        folder / "folder": "is a folder; give the name of the file",
        folder / "file" / "a.json": "file is no folder; give another path",
        folder / "file" / "b" / "a.json": "file is no folder; give another path",
        folder / "pipe": "no regular file",
        Path("/dev/full"): "no regular file",
        folder / ("a" * 300): "File name too long.*give a shorter name",
    }


def test_one_sentence_for_what_cannot_be_written(tmp_path):
    for target, sentence in make_bad_targets(tmp_path).items():
        with pytest.raises(UnwritableError, match=sentence):
            write_json(target, {})
        with pytest.raises(UnwritableError, match=f"^--json {target} .*{sentence}"):
            expect_outputs({"--json": target, "--csv": None})
    with pytest.raises(UnwritableError, match=r"^--out .*file is no folder"):
        expect_outputs(folders={"--out": tmp_path / "file"})
    assert {p.name for p in tmp_path.iterdir()} == {"file", "folder", "pipe"}
    assert (tmp_path / "file").read_text() == "kept"


def test_outputs_are_expected_without_making_anything(tmp_path, monkeypatch):
    (tmp_path / "old.json").write_text("old")
    files = {"--a": tmp_path / "new" / "a.json", "--b": tmp_path / "old.json"}
    expect_outputs(files, {"--out": tmp_path / "out" / "deep", "--dir": None})
    assert os.listdir(tmp_path) == ["old.json"]
    monkeypatch.setenv("RANK", "1")
    expect_outputs({"--a": tmp_path})  # may be of another machine
    monkeypatch.setenv("RANK", "0")
    monkeypatch.chdir(tmp_path)
    expect_outputs({"--a": "a.json"}, {"--out": "out"})
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    for options in ((files, None), (None, {"--out": tmp_path / "out"})):
        with pytest.raises(UnwritableError, match=r"Permission denied.*may write to"):
            expect_outputs(*options)


def test_outputs_are_kept_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept, new = tmp_path / "real" / "kept", tmp_path / "real" / "new"
    kept.parent.mkdir()
    kept.write_text("kept")
    Path("folder").symlink_to("real")
    Path("soft").symlink_to(kept)
    Path("dangling").symlink_to(new)
    os.link(kept, "hard")
    names = ["real/kept", "./real/../real/kept", "folder/kept", "soft", "hard"]
    for name in names:
        for given in (kept, ["other", str(kept)]):
            with pytest.raises(
                UnwritableError, match=r"^--out .* is the file of VIDEO"
            ):
                expect_outputs({"--out": name}, inputs={"VIDEO": given})
    for name in ("real/new", "folder/new", "dangling"):
        with pytest.raises(UnwritableError, match=r"is the file of --out, too; give"):
            expect_outputs({"--out": new, "--json": name})
    inputs = {"VIDEO": [str(kept)], "--labels": None, "config": "mmaction::a/b.py"}
    expect_outputs({"--out": "kept", "--json": new, "--csv": None}, inputs=inputs)


def test_full_disk_keeps_the_old_file(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", full_disk)
    target = tmp_path / "config.py"
    target.write_text("old")
    for write in (
        lambda: write_json(target, {}),
        lambda: Config({"a": 1}).dump(target),
        lambda: save_checkpoint({"a": 1}, str(target)),
        lambda: write_checkpoint(target, {"a": torch.zeros(1)}),
        lambda: mmengine.dump([1], str(target), file_format="pkl"),
    ):
        with pytest.raises(UnwritableError, match=r"\(No space left .*make room") as e:
            write()
        assert (e.value.errno, e.value.strerror) == (
            errno.ENOSPC,
            os.strerror(errno.ENOSPC),
        )
        assert target.read_text() == "old" and os.listdir(tmp_path) == ["config.py"]


def test_full_disk_beneath_the_error_of_a_library(tmp_path):
    with (
        pytest.raises(UnwritableError, match=r"a\.pth cannot be written \(No space"),
        renamed_when_complete(tmp_path / "a.pth"),
        open("/dev/full", "wb", buffering=0) as file,
    ):
        torch.save({"a": torch.zeros(10**5)}, file)


def test_errors_of_other_files_are_not_taken_for_those_of_writing(tmp_path):
    with (
        pytest.raises(FileNotFoundError),
        renamed_when_complete(tmp_path / "a.txt") as partial,
    ):
        shutil.copyfile(tmp_path / "gone", partial)
    for error in (UserError("mine"), OSError("of OpenCV"), ValueError("a bug")):
        with (
            pytest.raises(type(error)) as raised,
            renamed_when_complete(tmp_path / "a.txt"),
        ):
            raise error
        assert raised.value is error
