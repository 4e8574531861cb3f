"""Checking the videos of a list: damaged files, damaged runs, and going on."""

import csv
import faulthandler
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import write_video

from polynl_mm.datasets.decoding.surviving_decode import (
    SurvivingDecode,
    UnreadableVideoError,
)
from polynl_mm.datasets.preparation import check_videos
from polynl_mm.datasets.preparation.check_videos import main
from polynl_mm.datasets.preparation.video_files import find_cut
from polynl_mm.user_errors import UserError


@pytest.fixture
def videos(tmp_path):
    """A folder of two good videos and damaged ones, and a list of all of them."""
    folder = tmp_path / "the videos"
    (folder / "a class").mkdir(parents=True)
    write_video(folder / "good.mp4", frames=20)
    write_video(folder / "a class" / "good.avi", frames=20, seed=1)
    write_video(folder / "short.mp4", frames=5)
    content = (folder / "good.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(content[: len(content) // 2])
    avi = (folder / "a class" / "good.avi").read_bytes()
    (folder / "cut.avi").write_bytes(avi[: len(avi) // 2])
    (folder / "text.mp4").write_text("<html>403 Forbidden</html>\n" * 20)
    (folder / "empty.mp4").touch()
    (folder / "folder.mp4").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, len(content) // 2, np.uint8)
    (folder / "noise.mp4").write_bytes(
        content[:200] + noise.tobytes() + content[200 + len(noise) :]
    )
    return folder


PROBLEMS = {
    "good.mp4": "",
    "a class/good.avi": "",
    "short.mp4": "too short",
    "cut.mp4": "truncated",
    "cut.avi": "truncated",
    "text.mp4": "unreadable",
    "empty.mp4": "unreadable",
    "folder.mp4": "unreadable",
    "noise.mp4": "unreadable",
    "gone.mp4": "missing",
}


@pytest.fixture
def ann(tmp_path):
    path = tmp_path / "list.txt"
    lines = [f"{name};{number}\n" for number, name in enumerate(PROBLEMS)]
    path.write_text("".join(lines))
    return path


def run(ann, videos, *options):
    main([str(ann), "--videos", str(videos), "-j", "2", *options])


def clean(ann):
    return ann.with_name("list_clean.txt").read_text().splitlines()


def bad(ann):
    with open(ann.with_name("list_bad.csv"), newline="") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main([*map(str, arguments)])
    assert stop.value.code == 2
    errors = capsys.readouterr().err.splitlines()
    assert errors[-1].startswith("Error: ")
    return errors[-1]


def test_what_is_wrong_with_each(ann, videos, capfd):
    run(ann, videos, "--min-frames", "8")
    assert clean(ann) == ["good.mp4;0", "a class/good.avi;1"]
    rows = bad(ann)
    assert {name: row["problem"] for name, row in rows.items()} == {
        name: problem for name, problem in PROBLEMS.items() if problem
    }
    reasons = {name: row["reason"] for name, row in rows.items()}
    assert reasons["short.mp4"] == "has 5 frames, fewer than 8"
    assert reasons["empty.mp4"] == "is an empty file"
    assert reasons["folder.mp4"] == "is a folder"
    assert reasons["text.mp4"] == "is damaged or not a video"
    assert "bytes early" in reasons["cut.mp4"]
    assert "of 20 frames" in reasons["cut.avi"]
    assert rows["cut.avi"]["declared_frames"] == "20"
    said = capfd.readouterr()
    summary = "10 videos: 2 good, 8 bad (1 missing, 4 unreadable, 2 truncated, 1 too"
    assert summary in said.out
    assert f"  missing: {videos}/gone.mp4: does not exist" in said.out
    assert "Videos: 100%" in said.err
    assert "403 Forbidden" not in said.out + said.err  # decord prints such files


def test_jobs_are_processes(tmp_path, workers):
    for number in range(4):
        write_video(tmp_path / f"{number}.mp4", seed=number)
    ann = tmp_path / "list.txt"
    ann.write_text("".join(f"{number}.mp4 0\n" for number in range(4)))
    for jobs in (1, 3):
        workers.clear()
        options = ["--videos", str(tmp_path), "--jobs", str(jobs), "--restart"]
        main([str(ann), *options])
        assert len(workers) == jobs and len(clean(ann)) == 4


def test_an_interrupted_run_goes_on(ann, videos, monkeypatch):
    run(ann, videos)
    first, journal = bad(ann), ann.with_name("list_clean.journal")
    assert clean(ann)[-1] == "short.mp4;2"
    decoded = []
    decode_all = check_videos._decode_all

    def record(paths, *rest):
        decoded.append({os.path.relpath(path, videos) for path in paths})
        return decode_all(paths, *rest)

    monkeypatch.setattr(check_videos, "_decode_all", record)
    run(ann, videos, "--min-frames", "8")  # another limit needs no decoding
    assert decoded.pop() == set()
    assert bad(ann).keys() - first.keys() == {"short.mp4"}

    lines = journal.read_text().splitlines(keepends=True)
    torn = next(x for x in lines if "good.avi" in x)[:-20]  # killed while it wrote
    journal.write_text("".join(x for x in lines if "good.avi" not in x) + torn)
    write_video(videos / "cut.mp4", frames=20, seed=2)  # downloaded again
    run(ann, videos)
    assert decoded.pop() == {"a class/good.avi", "cut.mp4"}
    assert "cut.mp4;3" in clean(ann) and "a class/good.avi;1" in clean(ann)
    run(ann, videos)
    assert decoded.pop() == set()
    run(ann, videos, "--restart")
    assert decoded.pop() == set(PROBLEMS) - {"gone.mp4"}


def test_crashes_and_hangs_are_one_more_line(ann, videos, monkeypatch, capfd):
    check = check_videos.check_video

    def misbehave(path):
        faulthandler.disable()  # pytest's, which would show the crash
        name = os.path.basename(path)
        if name == "short.mp4":
            os.kill(os.getpid(), signal.SIGSEGV)
        if name == "text.mp4":
            os._exit(3)
        if name == "good.mp4":
            time.sleep(600)
        if name == "cut.mp4":
            raise RuntimeError("no idea")
        return check(path)

    monkeypatch.setattr(check_videos, "check_video", misbehave)
    run(ann, videos, "--timeout", "4")
    reasons = {name: row["reason"] for name, row in bad(ann).items()}
    assert reasons["short.mp4"] == "decoding crashed its process (SIGSEGV)"
    assert reasons["text.mp4"] == "decoding ended its process (exit status 3)"
    assert reasons["good.mp4"] == "decoding took longer than 4 s"
    assert reasons["cut.mp4"] == "decoding RuntimeError: no idea"
    assert clean(ann) == ["a class/good.avi;1"]
    # Another run, with more time, may find them good.
    monkeypatch.setattr(check_videos, "check_video", check)
    run(ann, videos)
    assert clean(ann) == ["good.mp4;0", "a class/good.avi;1", "short.mp4;2"]


def test_lists_of_other_forms(tmp_path, videos):
    ann = tmp_path / "list.txt"
    ann.write_text("good.mp4 7\ngood 8\ncut.mp4 0\n")  # DecordInit adds .mp4
    run(ann, videos)
    assert clean(ann) == ["good.mp4 7", "good 8"]
    ann.write_text(f"{videos}/good.mp4,7\n")
    out, report = tmp_path / "new" / "ok.txt", tmp_path / "new" / "bad.csv"
    main([str(ann), "--out", str(out), "--report", str(report)])
    assert out.read_text() == ann.read_text()
    assert report.read_text().splitlines() == [
        "path,problem,reason,frames,declared_frames"
    ]


def test_what_cannot_work(ann, videos, capsys):
    said = refused(capsys, ann.with_name("no.txt"))
    assert "no.txt cannot be read" in said
    said = refused(capsys, ann, "--videos", videos / "absent")
    assert "does not exist" in said
    said = refused(capsys, ann, "--videos", videos, "--out", ann)
    assert "would be overwritten" in said
    assert "-j must be" in refused(capsys, ann, "--videos", videos, "-j", "0")
    said = refused(capsys, ann, "--videos", videos, "--min-frames", "0")
    assert "--min-frames must be" in said
    said = refused(capsys, ann, "--videos", videos, "--delimiter", ",")
    assert "list.txt, line 1 has 1 field" in said
    ann.write_text("a class/good.avi 1\n")
    said = refused(capsys, ann, "--videos", videos)
    assert "line 1 has 3 fields" in said and "delimiter ' '" in said
    ann.write_text("text.mp4 0\ngone.mp4 1\n")
    said = refused(capsys, ann, "--videos", videos)
    assert "None of the 2 videos" in said and "text.mp4" in said
    assert not ann.with_name("list_clean.txt").exists()


def test_real_clips(shared_videos, tmp_path):
    names = ["corrupted.mp4", "flipping_a_pancake.mkv", "short_32_frames.mp4"]
    ann = tmp_path / "list.txt"
    ann.write_text("".join(f"{name} 0\n" for name in names))
    run(ann, shared_videos)
    rows = bad(ann)
    assert list(rows) == ["corrupted.mp4"]
    assert "of 50 fails" in rows["corrupted.mp4"]["reason"]
    assert len(clean(ann)) == len(names) - 1


def test_where_matroska_files_are_cut(shared_videos, tmp_path):
    content = (shared_videos / "flipping_a_pancake.mkv").read_bytes()
    for length in range(0, len(content), 8191):
        (tmp_path / "cut.mkv").write_bytes(content[:length])
        said = find_cut(tmp_path / "cut.mkv") or ""
        assert (f"ends {len(content) - length} bytes early" in said) == (length > 64)
    assert find_cut(shared_videos / "flipping_a_pancake.mkv") is None


WRITE_AV1 = """
import sys
import av
import numpy as np

with av.open(sys.argv[1], "w") as container:
    stream = container.add_stream("libsvtav1", rate=25)
    stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
    for _ in range(4):
        grey = np.full((64, 64, 3), 128, np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
    container.mux(stream.encode(None))
"""


def write_av1(path):
    """Write a video in a process of its own.

    Run by root, SVT-AV1 gives its process real-time priority, and whatever that starts
    would starve all others.
    """
    pytest.importorskip("av", reason="needs PyAV: pip install av")
    subprocess.run([sys.executable, "-c", WRITE_AV1, str(path)], check=True)


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".mkv"])
def test_a_codec_that_decord_has_no_decoder_for(tmp_path, suffix):
    write_av1(tmp_path / f"a{suffix}")
    state = check_videos.check_video(str(tmp_path / f"a{suffix}"))
    assert state.problem == "unreadable"
    assert "is AV1, for which decord has no decoder" in state.reason
    assert "resize_videos.py" in state.reason
    from mmaction.datasets import DecordInit

    step = SurvivingDecode([DecordInit()])
    with pytest.raises(UnreadableVideoError, match="it is AV1, for which decord has"):
        step.decode({"filename": str(tmp_path / f"a{suffix}")})


def test_journal_of_anybody(tmp_path):
    record = {"path": "a", "size": 1, "changed": 1, "state": {}}
    (tmp_path / "a").write_text(
        "\n".join(["[" * 10**5, "1" * 5000, "null", '{"path": []}', json.dumps(record)])
    )
    with check_videos.Journal(tmp_path / "a") as journal:
        assert list(journal._known) == [("a", 1, 1)]
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match=r"journal .*pipe is no regular file"):
        check_videos.Journal(tmp_path / "pipe")
