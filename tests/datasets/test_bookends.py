"""The Bookends files: determinism, interruption, decoding, refusals."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import decord
import numpy as np
import pytest

from polynl_mm.datasets import bookends
from polynl_mm.datasets.bookends import generate_bookends
from polynl_mm.datasets.bookends_clips import (
    PALETTE,
    BookendsParameters,
    plan_clips,
    render_clip,
)

GENERATE = Path(__file__).parents[2] / "tools" / "data" / "bookends" / "generate.py"
# The colours that nearest_colour() can tell.
HUES = tuple(name for name in PALETTE if name not in ("black", "white"))
SMALL = BookendsParameters(
    train=8, val=4, frames=6, size=32, colours=HUES, gap=2, seed=3
)


def read_files(root):
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def decode(path):
    return decord.VideoReader(str(path), num_threads=1)[:].asnumpy()


def nearest_colour(frame):
    """Name the palette colour of the most saturated pixels of an RGB frame."""
    pixels = frame.reshape(-1, 3).astype(float)
    saturation = pixels.max(1) - pixels.min(1)
    mean = pixels[saturation >= np.quantile(saturation, 0.97)].mean(0)
    return min(PALETTE, key=lambda name: np.abs(mean - PALETTE[name]).sum())


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return generate_bookends(tmp_path_factory.mktemp("bookends") / "small", SMALL)


def test_colours_and_jobs_of_the_command_line(tmp_path, monkeypatch):
    workers, run = [], bookends.run_isolated

    def count(function, items, jobs, timeout):
        workers.append(jobs)
        return run(function, items, jobs, timeout)

    monkeypatch.setattr(bookends, "run_isolated", count)
    size = ["--train", "4", "--val", "2", "--frames", "4", "--size", "32", "--gap", "0"]
    colours = ["--colours", "magenta", "yellow"]
    for jobs in (1, 2):
        root = tmp_path / str(jobs)
        bookends.main([str(root), *size, *colours, "--jobs", str(jobs)])
        videos = sorted(root.glob("*/*.mp4"))
        ends = [
            nearest_colour(decode(video)[end]) for video in videos for end in (0, 3)
        ]
        assert len(videos) == 6 and set(ends) == {"magenta", "yellow"}
    assert workers == [2], "one job needs no other process"


def test_folder_made_before_there_were_levels_goes_on(small, tmp_path):
    record = json.loads((small / "bookends.json").read_text())
    del record["level"]
    root = tmp_path / "old"
    root.mkdir()
    (root / "bookends.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="level 1 instead of 2"):
        generate_bookends(root, dataclasses.replace(SMALL, level=2))
    assert read_files(generate_bookends(root, SMALL)) == read_files(small)


def test_halves_show_their_colours_and_the_gap_shows_none(small):
    for clip in plan_clips(SMALL, "train"):
        frames = decode(small / clip.path)
        assert frames.shape == (6, 32, 32, 3)
        assert [nearest_colour(f) for f in frames[:2]] == [clip.first] * 2
        assert [nearest_colour(f) for f in frames[4:]] == [clip.last] * 2
        saturation = np.ptp(frames[2:4].astype(int), axis=-1)
        # Compression leaves some colour behind, but no disc (8 to 15 % of a frame).
        assert (saturation > 100).mean() < 0.02


def test_default_clips_survive_compression(tmp_path):
    parameters = BookendsParameters(train=2, val=2)
    root = generate_bookends(tmp_path / "data", parameters)
    for clip in plan_clips(parameters, "train"):
        drawn = render_clip(parameters, clip)
        reader = decord.VideoReader(str(root / clip.path), num_threads=1)
        assert len(reader) == 16
        decoded = reader.get_batch(range(16)).asnumpy()
        assert np.abs(decoded - drawn.astype(float)).mean() < 12
        # Frames come back at their own place, in any order.
        order = [9, 0, 15, 3]
        assert (reader.get_batch(order).asnumpy() == decoded[order]).all()


def test_annotation_lists_name_every_file(small):
    for split, count in ("train", 8), ("val", 4):
        lines = (small / f"{split}.txt").read_text().splitlines()
        assert lines == [f"{c.path} {c.label}" for c in plan_clips(SMALL, split)]
        videos = sorted((small / split).iterdir())
        assert [str(v.relative_to(small)) for v in videos] == [
            line.split()[0] for line in lines
        ]
        assert len(videos) == count
    assert json.loads((small / "bookends.json").read_text())["seed"] == 3


def test_same_seed_same_files_and_another_seed_others(small, tmp_path):
    again = generate_bookends(tmp_path / "again", SMALL, jobs=2)
    assert read_files(again) == read_files(small)
    clip = plan_clips(SMALL, "train")[0]
    other = dataclasses.replace(SMALL, seed=4)
    assert (render_clip(other, clip) != render_clip(SMALL, clip)).any()


def test_complete_files_are_kept(small, monkeypatch):
    monkeypatch.setattr(bookends, "render_clip", None)
    before = read_files(small)
    generate_bookends(small, SMALL)
    assert read_files(small) == before


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_interrupted_run_goes_on_to_the_same_files(tmp_path, jobs, how):
    parameters = BookendsParameters(train=300, val=2, size=64)
    root = tmp_path / "data"
    arguments = ["--train", "300", "--val", "2", "-j", str(jobs)]
    command = [sys.executable, str(GENERATE), str(root), *arguments]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A test suite started in the background hands an ignored Ctrl-C down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while len(list(root.glob("train/[0-9]*.mp4"))) < 20:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(how)
    errors = process.communicate(timeout=30)[1]
    assert process.returncode == (-how if how == signal.SIGKILL else 130)
    assert "Traceback" not in errors
    assert_session_ends(process.pid)
    kept = {path: path.stat().st_mtime_ns for path in root.glob("train/[0-9]*.mp4")}
    assert 20 <= len(kept) < 300
    assert not (root / "train.txt").exists()

    # The rest of the test needs no 300 clips: pretend that most are done.
    for clip in plan_clips(parameters, "train")[len(kept) + 5 :]:
        (root / clip.path).write_bytes(b"")
    generate_bookends(root, parameters)
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    assert not list(root.rglob(".*"))
    for clip in plan_clips(parameters, "train")[: len(kept) + 5]:
        content = (root / clip.path).read_bytes()
        fresh = tmp_path / "fresh.mp4"
        bookends.write_video(fresh, render_clip(parameters, clip))
        assert content == fresh.read_bytes()


def assert_session_ends(session):
    """Wait until no process of a session is left, such as orphaned workers."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.killpg(session, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError("workers outlive the generator")


def test_folder_made_with_other_parameters_is_refused(small):
    other = dataclasses.replace(SMALL, seed=9)
    before = read_files(small)
    with pytest.raises(ValueError, match=r"seed 3 instead of 9.*--overwrite"):
        generate_bookends(small, other)
    assert read_files(small) == before


def test_overwrite_replaces_the_folder(tmp_path):
    root = generate_bookends(tmp_path / "data", SMALL)
    (root / "train" / "holiday.mp4").write_text("the user's own")
    other = dataclasses.replace(SMALL, train=4, val=2, seed=9)
    generate_bookends(root, other, overwrite=True)
    (root / "train" / "holiday.mp4").unlink()  # fails if it was deleted
    fresh = generate_bookends(tmp_path / "fresh", other)
    assert read_files(root) == read_files(fresh)


def test_strangers_folder_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("irreplaceable")
    with pytest.raises(ValueError, match="not empty"):
        generate_bookends(tmp_path, SMALL)
    with pytest.raises(ValueError, match="is a file"):
        generate_bookends(tmp_path / "thesis.txt", SMALL)
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "000001.mp4").write_text("irreplaceable too")
    with pytest.raises(ValueError, match="not even --overwrite"):
        generate_bookends(tmp_path, SMALL, overwrite=True)
    assert set(read_files(tmp_path)) == {"thesis.txt", "train/000001.mp4"}


def test_no_jobs_are_refused(tmp_path):
    with pytest.raises(ValueError, match="jobs must be 1 or more, not 0"):
        generate_bookends(tmp_path / "data", SMALL, jobs=0)


def test_unwritable_video_is_reported(tmp_path):
    with pytest.raises(OSError, match="holds 0 of 6 frames"):
        bookends.write_video(
            tmp_path / "missing" / "clip.mp4", np.zeros((6, 32, 32, 3), np.uint8)
        )


def test_command_line_says_what_is_wrong(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_info:
        bookends.main([str(tmp_path / "data"), "--gap", "40"])
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("Error: gap must leave") and error.count("\n") == 1
    assert not (tmp_path / "data").exists()
