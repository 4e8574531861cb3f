# ruff: noqa: RUF005  (an option and its value stay together)
import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from conftest import TOOLS

from polynl_mm.recognizers.configs import load_config
from polynl_mm.recognizers.video_reading import (
    UnreadableVideoError,
    count_readable_frames,
    read_frames,
)


@pytest.fixture(scope="module")
def untrained(tiny_config, tmp_path_factory):
    """The tiny config and a checkpoint of its untrained weights."""
    from mmaction.registry import MODELS
    from mmaction.utils import register_all_modules

    register_all_modules()
    folder = tmp_path_factory.mktemp("untrained")
    config = tiny_config(folder / "tiny.py")
    torch.manual_seed(0)
    model = MODELS.build(load_config(str(config)).model)
    torch.save({"state_dict": model.state_dict()}, folder / "tiny.pth")
    return str(config), str(folder / "tiny.pth")


def test_prints_classes_with_probabilities(
    untrained, tool, tiny_dataset, tmp_path, capsys
):
    labels, out = tmp_path / "labels.txt", tmp_path / "p.json"
    labels.write_text("juggling\nrowing a boat\n")
    video = tiny_dataset / "videos" / "3.mp4"
    status = tool("predict").main(
        [*untrained, str(video), "--labels", str(labels), "--json", str(out)]
        + ["--out-dir", str(tmp_path / "out"), "--device", "cpu"]
    )
    assert status == 0
    said = capsys.readouterr().out
    assert "juggling" in said and "rowing a boat" in said
    (record,) = json.loads(out.read_text())
    assert sum(record["probabilities"]) == pytest.approx(1, abs=1e-5)
    assert record["probabilities"] == sorted(record["probabilities"], reverse=True)
    copy = tmp_path / "out" / "3_predicted.mp4"
    assert [p.name for p in copy.parent.iterdir()] == [copy.name]
    assert count_readable_frames(copy)[0] == count_readable_frames(video)[0] == 8
    before, after = (read_frames(p, np.arange(1))[0] for p in (video, copy))
    changed = np.abs(before.astype(int) - after.astype(int)).max(-1) > 60
    assert 0.01 < changed.mean() < 0.7, "the text must cover a part of the frame"


@pytest.mark.parametrize("average", ["score", None])
def test_probabilities_whatever_the_config_averages(
    untrained, tool, tiny_dataset, tmp_path, average
):
    out, video = tmp_path / "p.json", tiny_dataset / "videos" / "3.mp4"
    option = f"model.cls_head.average_clips={average}"
    arguments = ["--json", str(out), "--device", "cpu", "--cfg-options", option]
    assert tool("predict").main([*untrained, str(video), *arguments]) == 0
    (record,) = json.loads(out.read_text())
    assert sum(record["probabilities"]) == pytest.approx(1, abs=1e-5)


def test_videos_of_one_name_have_copies_of_their_own(
    untrained, tool, tiny_dataset, tmp_path
):
    videos = [tmp_path / "one" / "x.mp4", tmp_path / "two" / "x.mp4"]
    for index, video in enumerate(videos):
        video.parent.mkdir()
        source = tiny_dataset / "videos" / f"{index}.mp4"
        video.write_bytes(source.read_bytes())
    out = tmp_path / "out"
    for _ in range(2):  # the second run replaces the copies of the first
        tool("predict").main([*untrained, *map(str, videos), "--out-dir", str(out)])
        names = sorted(path.name for path in out.iterdir())
        assert names == ["x_predicted.mp4", "x_predicted_2.mp4"]


def test_copy_of_one_video_is_not_written_over_another(
    untrained, tool, tiny_dataset, tmp_path
):
    videos = [tmp_path / "a.mp4", tmp_path / "a_predicted.mp4"]
    for index, video in enumerate(videos):
        video.write_bytes((tiny_dataset / "videos" / f"{index}.mp4").read_bytes())
    before = [video.read_bytes() for video in videos]
    tool("predict").main([*untrained, *map(str, videos), "--out-dir", str(tmp_path)])
    assert [video.read_bytes() for video in videos] == before
    new = {path.name for path in tmp_path.glob("*.mp4")} - {v.name for v in videos}
    assert new == {"a_predicted_2.mp4", "a_predicted_predicted.mp4"}


def test_unreadable_videos_do_not_disturb_the_others(
    untrained, tool, tiny_dataset, tmp_path, capfd
):
    text, empty = tmp_path / "text.mp4", tmp_path / "empty.mp4"
    text.write_text("no video")
    empty.touch()
    good = tiny_dataset / "videos" / "0.mp4"
    half = tmp_path / "half.mp4"
    half.write_bytes(good.read_bytes()[:500])
    bad = [text, empty, half, tmp_path / "absent.mp4", tmp_path]
    status = tool("predict").main([*untrained, *map(str, [*bad, good])])
    assert status == 1
    said = capfd.readouterr()
    assert f"{good}:" in said.out
    errors = [x for x in said.err.splitlines() if x.startswith("Error: ")]
    assert len(errors) == len(bad)
    for video, sentence in zip(bad, errors, strict=True):
        assert str(video) in sentence


def test_a_name_that_is_not_utf8(untrained, tool, tiny_dataset, tmp_path, capfd):
    good, bad = tiny_dataset / "videos" / "0.mp4", tmp_path / os.fsdecode(b"b\xff.mp4")
    try:
        bad.write_bytes(good.read_bytes())
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    out = tmp_path / "p.json"
    videos = [str(bad), str(good), "--json", str(out), "--device", "cpu"]
    for kind in ([], ["--whole-video"]):
        assert tool("predict").main([*untrained, *videos, *kind]) == 1
        said = capfd.readouterr()
        assert f"{good}:" in said.out
        assert said.err.count("b\\xff.mp4 has a name that is not UTF-8") == 1
        assert len(json.loads(out.read_text())) == 2


def test_real_clips_the_damaged_one_too(
    untrained, tool, shared_videos, tmp_path, capfd
):
    videos = sorted(map(str, shared_videos.iterdir()))
    out = tmp_path / "p.json"
    # Frames from the whole clip, so that the damaged ones are among them.
    spread = ["--cfg-options", "test_pipeline.1.frame_interval=12"]
    status = tool("predict").main([*untrained, *videos, "--json", str(out), *spread])
    assert status == 0
    records = {r["video"].split("/")[-1]: r for r in json.loads(out.read_text())}
    assert len(records) == len(videos)
    assert records["corrupted.mp4"]["note"].startswith("28 of 50 frames")
    assert all(not r["note"] for n, r in records.items() if n != "corrupted.mp4")
    assert "h264" not in capfd.readouterr().err


def test_frames_come_in_the_order_asked_for(tmp_path):
    path = tmp_path / "grey.mp4"
    out = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 64))
    for level in range(0, 250, 25):
        out.write(np.full((64, 64, 3), level, np.uint8))
    out.release()
    frames = read_frames(str(path), np.array([7, 2, 2, 0]))
    levels = [round(frame.mean() / 25) for frame in frames]
    assert levels == [7, 2, 2, 0]


class Capture:
    """A video of eight frames, of which only those in ``good`` can be decoded."""

    good = ()

    def __init__(self, path):
        self.index = -1

    def grab(self):
        self.index += 1
        return self.index < 8

    def retrieve(self):
        if self.index in self.good:
            return True, np.full((4, 4, 3), self.index, np.uint8)
        return False, None

    def release(self):
        pass


def test_frames_that_cannot_be_decoded_are_passed_over(monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    with pytest.raises(UnreadableVideoError, match=r"a\.mp4: none of the frames"):
        read_frames("a.mp4", np.arange(4))
    monkeypatch.setattr(Capture, "good", (1, 5))
    frames = read_frames("a.mp4", np.arange(8))
    assert [frame.max() for frame in frames] == [1, 1, 1, 1, 5, 5, 5, 5]


def test_errors_of_opencv_are_said(monkeypatch):
    def fail(self):
        raise cv2.error("bad stream")

    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    monkeypatch.setattr(Capture, "grab", fail)
    with pytest.raises(UnreadableVideoError, match=r"a\.mp4: OpenCV.*bad stream"):
        read_frames("a.mp4", np.arange(4))


def test_config_that_reads_no_videos(untrained, tool, tmp_path, capsys):
    config, checkpoint = untrained
    with pytest.raises(SystemExit):
        tool("predict").main(
            [config, checkpoint, "a.mp4", "--cfg-options"]
            + ["test_pipeline.0.type=RawFrameDecode"]
        )
    assert "does not read videos" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        tool("predict").main([config, checkpoint, "a.mp4", "--top-k", "0"])


def test_whole_videos(untrained, tool, tiny_dataset, tmp_path, capsys):
    video, out = tiny_dataset / "videos" / "3.mp4", tmp_path / "p.json"
    options = ["--json", str(out), "--device", "cpu", "--whole-video"]
    records = []
    for parts in (["--part-frames", "2"], []):
        command = [*untrained, str(video), *options, "--stride", "2", *parts]
        assert tool("predict").main(command) == 0
        assert "4 frames, one pass over them" in capsys.readouterr().out
        records += json.loads(out.read_text())
    assert records[0]["probabilities"] == pytest.approx(records[1]["probabilities"])
    # Four frames of eight are also what this sampling takes.
    sampling = ["--cfg-options", "test_pipeline.1.frame_interval=2"]
    command = [*untrained, str(video), "--json", str(out), "--device", "cpu", *sampling]
    assert tool("predict").main(command) == 0
    (sampled,) = json.loads(out.read_text())
    assert records[0]["probabilities"] == pytest.approx(sampled["probabilities"])


@pytest.mark.parametrize(
    "options, sentence",
    [
        (["--stride", "2"], "are of --whole-video; give that, too"),
        (["--whole-video", "--part-frames", "0"], "--part-frames is a whole number"),
    ],
)
def test_mistakes_about_whole_videos(untrained, tool, capsys, options, sentence):
    with pytest.raises(SystemExit):
        tool("predict").main([*untrained, "a.mp4", *options])
    assert sentence in capsys.readouterr().err


def test_exit_status_of_the_tool(untrained, tmp_path):
    command = [sys.executable, str(TOOLS / "predict.py"), *untrained]
    done = subprocess.run([*command, str(tmp_path / "absent.mp4")], timeout=200)
    assert done.returncode == 1
