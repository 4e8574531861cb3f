"""What cannot be written is said in one sentence, before anything is read."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from polynl_mm.recognizers.annotated_videos import write_annotated
from polynl_mm.user_errors import UserError

TOOLS = Path(__file__).resolve().parents[2] / "tools"
NO = ["no.py", "no.pth"]  # what the tools would read later
FILES = [
    ("predict", [*NO, "no.mp4", "--json"]),
    ("analysis_tools/analyze_logs", ["plot_curve", "no", "--out"]),
    ("analysis_tools/confusion_matrix", ["no.pkl", "--out"]),
    ("analysis_tools/confusion_matrix", ["no.pkl", "--json"]),
    ("analysis_tools/per_class_accuracy", ["no.pkl", "--out"]),
    ("analysis_tools/report_accuracy", ["--preds", "no.pkl", "--metrics"]),
    ("analysis_tools/report_accuracy", ["--preds", "no.pkl", "--dump"]),
    ("convert/non_local_to_polynl", ["no.pth"]),
    ("convert/pyslowfast", ["no.pth"]),
    ("convert/pyslowfast", ["no.pth", "new.pth", "--model-config"]),
    ("deployment/export_onnx", [*NO, *["--shape", "3", "4", "8", "8", "--out"]]),
    ("data/check_videos", ["no.txt", "--videos", "no", "--out"]),
    ("data/check_videos", ["no.txt", "--videos", "no", "--report"]),
    ("data/kinetics/build_annotations", ["--csv", "no", "--videos", "no", "--out"]),
    (
        "data/kinetics/build_annotations",
        ["--csv", "no", "--videos", "no", "--out", "new.txt", "--classes-out"],
    ),
]
FOLDERS = [
    ("predict", [*NO, "no.mp4", "--out-dir"]),
    ("analysis_tools/benchmark_plugins", ["--out"]),
    (
        "analysis_tools/measure_scaling",
        ["no.py", "--shape", "3", "4", "8", "8", "--out"],
    ),
    (
        "analysis_tools/measure_clip_parallel",
        ["no.py", "--shape", "3", "4", "8", "8", "--out"],
    ),
    ("data/ucf101/build_annotations", ["--splits", "no", "--out"]),
    ("quickstart", ["--work-dir"]),
    ("reproduce/bookends", ["--work-dir"]),
]


@pytest.fixture
def refusal(tool, tmp_path, monkeypatch, capsys):
    """Return a function that runs a tool and gives the one sentence it ends with."""
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    there = sorted(os.listdir())

    def run(name, arguments):
        with pytest.raises(SystemExit) as left:
            tool(name).main([str(argument) for argument in arguments])
        assert left.value.code == 2
        said = capsys.readouterr().err.strip().splitlines()
        assert sorted(os.listdir()) == there
        return said[-1]

    return run


@pytest.mark.parametrize(("name", "arguments"), FILES, ids=lambda x: str(x)[-30:])
def test_files(refusal, name, arguments):
    option = arguments[-1] if arguments[-1].startswith("--") else "target"
    for path, sentence in (
        ("folder", "is a folder; give the name"),
        ("file/a.png", "file is no folder; give another path"),
        ("pipe", "is no regular file"),
        ("/dev/full", "is no regular file"),
    ):
        said = refusal(name, [*arguments, path])
        assert said.startswith(f"Error: {option} {path} ") and sentence in said


@pytest.mark.parametrize(("name", "arguments"), FOLDERS, ids=lambda x: str(x)[-30:])
def test_folders(refusal, name, arguments):
    for path in ("file", "file/deep", "pipe"):
        said = refusal(name, [*arguments, path])
        assert said.startswith(f"Error: {arguments[-1]} ")
        assert " is no folder; give another path" in said


@pytest.mark.parametrize(
    ("option", "path", "sentence"),
    [
        ("--metrics", "folder", "--metrics folder is a folder"),
        ("--metrics", "file/m.json", "file is no folder"),
        ("--dump", "file/d.pkl", "file is no folder"),
        ("--show-dir", "file", "file is no folder"),
        ("--work-dir", "file", "file is no folder"),
    ],
)
def test_outputs_of_test(
    tiny_config, tmp_path_factory, refusal, option, path, sentence
):
    config = tiny_config(tmp_path_factory.mktemp("config") / "tiny.py")
    assert sentence in refusal("test", [config, "no.pth", option, path])


def test_work_dir_of_train_is_a_file(tiny_config, tmp_path_factory, refusal):
    config = tiny_config(tmp_path_factory.mktemp("config") / "tiny.py")
    for path in ("file", "file/deep"):
        said = refusal("train", [config, "--work-dir", path])
        assert f"work dir {path} cannot be written to" in said


def test_publish_beside_a_file(refusal):
    torch.save({"state_dict": {"a": torch.zeros(1)}}, "../a.pth")
    said = refusal("deployment/publish_model", ["../a.pth", "file/a.pth"])
    assert said.startswith("Error: target file/a.pth cannot be written: file is no ")


def test_disk_that_is_full_in_the_end(tool, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    (tmp_path / "scalars.json").write_text('{"loss": 1, "epoch": 1, "step": 1}\n')
    picture = tmp_path / "a.png"
    picture.write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    arguments = ["plot_curve", str(tmp_path), "--out", str(picture)]
    with pytest.raises(SystemExit) as left:
        tool("analysis_tools/analyze_logs").main(arguments)
    said = capsys.readouterr().err.strip()
    assert left.value.code == 2 and len(said.splitlines()) == 1
    assert f"{picture} cannot be written (No space left on device); make room" in said
    assert picture.read_text() == "old" and len(os.listdir(tmp_path)) == 2


@pytest.fixture
def fill(tmp_path):
    """Return a function that leaves so many kB free of a small disk."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if (
        shutil.which("mount") is None
        or subprocess.run(command, stderr=subprocess.DEVNULL).returncode
    ):
        pytest.skip("this user may not mount a tmpfs")

    def leave(free):
        shutil.rmtree(folder / "w", ignore_errors=True)
        (folder / "filler").write_bytes(bytes(1024 * (64 - free)))
        return folder / "w"

    yield leave
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize(
    ("free", "sentence"),
    [
        (0, r"The work dir .*w cannot be written to \(No space"),
        (16, r"vis_data/config\.py cannot be written \(No space.*make room"),
        (32, r"w/tiny\.py cannot be written \(No space.*make room"),
    ],
)
def test_work_dir_on_a_full_disk(tiny_config, tmp_path, fill, free, sentence):
    config, work_dir = tiny_config(tmp_path / "tiny.py"), fill(free)
    # Its log is the process's own.
    command = [sys.executable, TOOLS / "train.py", config, "--work-dir", work_dir]
    done = subprocess.run(command, capture_output=True, text=True)
    (said,) = [x for x in done.stderr.splitlines() if x.startswith("Error: ")]
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert re.search(sentence, said), said
    assert all(path.stat().st_size for path in work_dir.rglob("*.py"))


def test_annotated_copy_on_a_full_disk(tiny_dataset, fill):
    video, folder = str(tiny_dataset / "videos" / "1.mp4"), fill(4)
    with pytest.raises(UserError, match=r"copy\.mp4 cannot be written"):
        write_annotated(video, lambda _: ["a"], folder / "copy.mp4")
    assert not list(folder.iterdir())
