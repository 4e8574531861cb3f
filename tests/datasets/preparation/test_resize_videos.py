"""Resizing videos: sizes, frames, damaged files, and going on where it stopped."""

import importlib.util
import json
import os
import time
from fractions import Fraction

import numpy as np
import pytest

from polynl_mm.datasets.preparation import resize_videos, resized_video
from polynl_mm.datasets.preparation.resize_videos import main

av = pytest.importorskip("av", reason="needs PyAV: pip install av")


def write(
    path,
    width,
    height,
    frames=12,
    rate=Fraction(30000, 1001),
    sound=False,
    codec="mpeg4",
):
    """Write a video whose left half is black and whose right half is white."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.zeros((height, width, 3), np.uint8)
    picture[:, width // 2 :] = 255
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if sound:
            audio = container.add_stream("mp2", rate=32000)
            silence = np.zeros((1, 2 * 16000), np.int16)
            chunk = av.AudioFrame.from_ndarray(silence, format="s16", layout="stereo")
            chunk.sample_rate = 32000
            container.mux(audio.encode(chunk))
            container.mux(audio.encode(None))
        for _ in range(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def read(path):
    with av.open(str(path)) as container:
        rate = container.streams.video[0].average_rate
        frames = [x.to_ndarray(format="rgb24") for x in container.decode(video=0)]
        return np.stack(frames), rate, [x.type for x in container.streams]


@pytest.fixture
def source(tmp_path):
    """A tree of four good videos of different sizes and two damaged ones."""
    root = tmp_path / "from here"
    write(root / "a class" / "wide.avi", 342, 162, sound=True)
    write(root / "a class" / "deeper" / "high.mp4", 90, 160, rate=Fraction(25))
    write(root / "small.mkv", 64, 48)
    write(root / "exact.mp4", 100, 80, codec="libx264")
    content = (root / "a class" / "wide.avi").read_bytes()
    (root / "cut.avi").write_bytes(content[: len(content) // 2])
    (root / "text.webm").write_text("<html>" * 100)
    (root / "notes.txt").write_text("no video")
    (root / ".hidden.mp4").write_text("half a download")
    return root


def run(source, target, *options, status=1):
    arguments = [str(source), str(target), "--short-side", "80", "-j", "2", *options]
    if not status:
        main(arguments)
        return
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == status


def files(folder):
    return {str(x.relative_to(folder)) for x in folder.rglob("*") if x.is_file()}


GOOD = {"a class/wide.mp4", "a class/deeper/high.mp4", "small.mp4", "exact.mp4"}


def test_jobs_are_processes(tmp_path, workers):
    source = tmp_path / "from"
    for number in range(4):
        write(source / f"{number}.mp4", 96, 64, frames=2)
    for jobs in (1, 3):
        workers.clear()
        target = tmp_path / str(jobs)
        main([str(source), str(target), "--short-side", "32", "--jobs", str(jobs)])
        assert len(workers) == jobs and len(list(target.glob("*.mp4"))) == 4


def test_a_tree_of_videos(source, tmp_path, capfd):
    target = tmp_path / "to there"
    run(source, target)
    assert files(target) == GOOD | {"resized.json", "not_resized.txt"}
    frames, rate, streams = read(target / "a class" / "wide.mp4")
    assert frames.shape == (12, 80, 168, 3)  # 342 / 162 * 80 = 168.9
    assert rate == Fraction(30000, 1001)
    assert streams == ["video"]
    left, right = frames[:, :, :80].mean(), frames[:, :, 88:].mean()
    assert left < 10 and right > 245
    frames, rate, _ = read(target / "a class" / "deeper" / "high.mp4")
    assert frames.shape == (12, 142, 80, 3) and rate == 25
    assert read(target / "small.mp4")[0].shape == (12, 48, 64, 3)
    assert (target / "exact.mp4").read_bytes() == (source / "exact.mp4").read_bytes()
    failed = (target / "not_resized.txt").read_text().splitlines()
    assert [line.split(": ")[0] for line in failed] == [
        f"{source}/cut.avi",
        f"{source}/text.webm",
    ]
    assert "of 12 frames; the file ends" in failed[0]
    assert failed[1].endswith(": is damaged or not a video")
    said = capfd.readouterr()
    assert "2 videos resized, 1 small ones encoded at their size, 1 small" in said.out
    assert "2 failed" in said.out
    assert "not those of videos: 1 .txt (notes.txt)" in said.out
    assert "Videos: 100%" in said.err


def test_an_interrupted_run_goes_on(source, tmp_path, monkeypatch, capfd):
    target = tmp_path / "out"
    run(source, target)
    leftover = target / "a class" / ".wide.4711-0a1b2c.part.mp4"
    leftover.write_text("killed while it wrote")
    (target / "exact.mp4").unlink()
    write(source / "cut.avi", 160, 120)  # downloaded again
    later = time.time_ns() + 10**9
    os.utime(source / "small.mkv", ns=(later, later))  # changed
    started = []
    run_isolated = resize_videos.run_isolated

    def record(function, jobs, *rest):
        started.extend(str(job.source.relative_to(source)) for job in jobs)
        return run_isolated(function, jobs, *rest)

    monkeypatch.setattr(resize_videos, "run_isolated", record)
    capfd.readouterr()
    run(source, target)
    assert sorted(started) == ["cut.avi", "exact.mp4", "small.mkv", "text.webm"]
    assert not leftover.exists() and (target / "cut.mp4").exists()
    assert "1 videos resized, 1 small ones encoded" in capfd.readouterr().out
    (source / "text.webm").unlink()
    run(source, target, status=0)
    assert not (target / "not_resized.txt").exists()


def test_half_written_videos_never_have_the_final_name(source, tmp_path, monkeypatch):
    write_h264 = resized_video.write_h264

    def stop_half_way(frames, target, *rest):
        write_h264(frames, target, *rest)
        target.write_bytes(target.read_bytes()[:500])
        os._exit(1)

    monkeypatch.setattr(resized_video, "write_h264", stop_half_way)
    run(source, tmp_path / "out")
    kept = {"exact.mp4", "resized.json", "not_resized.txt"}
    assert files(tmp_path / "out") == kept


def test_a_full_disk_ends_the_run(source, tmp_path, monkeypatch, capfd):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(resized_video, "write_h264", fail)
    run(source, tmp_path / "out", status=2)
    error = capfd.readouterr().err.splitlines()[-1]
    assert "No space left on device; the same command goes on" in error


def test_upscaling_and_damaged_videos_if_asked_for(source, tmp_path):
    run(source, tmp_path / "out", "--upscale", "--keep-damaged")
    assert read(tmp_path / "out" / "small.mp4")[0].shape == (12, 80, 106, 3)
    frames = read(tmp_path / "out" / "cut.mp4")[0]
    assert 0 < len(frames) < 12 and frames.shape[1:] == (80, 168, 3)
    failed = (tmp_path / "out" / "not_resized.txt").read_text().splitlines()
    assert len(failed) == 1 and "text.webm" in failed[0]


def test_two_videos_of_one_result(source, tmp_path):
    write(source / "exact.avi", 160, 120)
    run(source, tmp_path / "out")
    failed = (tmp_path / "out" / "not_resized.txt").read_text()
    assert f"{source}/exact.mp4: would be {tmp_path}/out/exact.mp4, as " in failed


def test_what_cannot_work(source, tmp_path, capsys, monkeypatch):
    def refused(*arguments):
        with pytest.raises(SystemExit) as stop:
            main([*map(str, arguments)])
        assert stop.value.code == 2
        errors = capsys.readouterr().err.splitlines()
        assert errors[-1].startswith("Error: ")
        return errors[-1]

    out = tmp_path / "out"
    assert "separate folders" in refused(source, source)
    assert "separate folders" in refused(source, source / "inner")
    assert "separate folders" in refused(source, tmp_path)
    assert "does not exist" in refused(tmp_path / "absent", out)
    (tmp_path / "empty").mkdir()
    assert "no videos below" in refused(tmp_path / "empty", out)
    for option, value in {
        "--short-side": "255",
        "--crf": "52",
        "--keyframe-interval": "0",
        "-j": "0",
    }.items():
        assert f"{option} must be" in refused(source, out, option, value)
    (tmp_path / "file").touch()
    assert "is a file" in refused(source, tmp_path / "file")
    other = tmp_path / "other"
    other.mkdir()
    (other / "resized.json").write_text(json.dumps({"short_side": 320}))
    assert "short_side 320 instead of 256" in refused(source, other)
    (other / "resized.json").write_text("{")
    assert "resized.json cannot be read" in refused(source, other)
    (other / "resized.json").write_text("[" * 10**5)
    assert "resized.json is nested too deep" in refused(source, other)
    (other / "resized.json").unlink()
    os.mkfifo(other / "resized.json")
    assert "no regular file" in refused(source, other)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda x: None if x == "av" else find_spec(x)
    )
    assert 'pip install "av>=15"' in refused(source, out)


def test_a_real_clip(shared_videos, tmp_path):
    from decord import VideoReader

    (tmp_path / "in").mkdir()
    name = "short_32_frames.mp4"
    (tmp_path / "in" / name).symlink_to(shared_videos / name)
    run(tmp_path / "in", tmp_path / "out", "--short-side", "128", status=0)
    before = VideoReader(str(shared_videos / name))
    after = VideoReader(str(tmp_path / "out" / name))
    assert len(after) == len(before) == 32
    assert after[0].shape == (128, 170, 3)
    assert after.get_avg_fps() == pytest.approx(before.get_avg_fps())
    for index in (0, 16, 31):
        old, new = before[index].asnumpy(), after[index].asnumpy()  # (H, W, 3)
        shrunk = old[:256, :340].reshape(128, 2, 170, 2, 3).mean((1, 3))
        assert np.abs(shrunk - new).mean() < 6
