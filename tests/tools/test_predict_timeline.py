import csv
import json

import cv2
import numpy as np
import pytest
from clips_over_time import (
    AS_TSN,
    noise,
    save_untrained,
    scores_of_test,
    write_at_times,
    write_lossless,
)

from polynl_mm.commands.result_names import result_stem
from polynl_mm.recognizers.annotated_videos import write_annotated
from polynl_mm.recognizers.frames_in_order import Frame, FramesInOrder
from polynl_mm.recognizers.timelines import Timeline
from polynl_mm.recognizers.windows import windows_of


@pytest.fixture(scope="module", params=["3d", "2d"])
def untrained(request, tiny_config, tmp_path_factory):
    """A config of each kind of recognizer, and random weights."""
    folder = tmp_path_factory.mktemp("untrained")
    extra = AS_TSN if request.param == "2d" else ""
    config = tiny_config(folder / "tiny.py", extra=extra)
    return str(config), save_untrained(config)


def run(tool, untrained, video, out, *options):
    tool("predict_timeline").main(
        [*untrained, str(video), "--out-dir", str(out), "--device", "cpu", *options]
    )
    return json.loads((out / f"{result_stem(str(video))}_timeline.json").read_text())


def test_scores_are_those_of_test_on_the_same_frames(untrained, tool, tmp_path):
    frames = np.concatenate([noise(17, 1), noise(16, 2)])
    video = write_lossless(tmp_path / "long.avi", frames, fps=10)
    record = run(
        tool, untrained, video, tmp_path / "out", "--window", "1.2", "--step", "0.5"
    )
    starts = [0, 5, 10, 15, 20, 25]
    windows = record["windows"]
    assert [w["start"] for w in windows] == [s / 10 for s in starts]
    assert [w["end"] for w in windows] == [1.2, 1.7, 2.2, 2.7, 3.2, 3.3]
    cut = [frames[start : start + 12] for start in starts]
    (tmp_path / "cut").mkdir()
    expected = scores_of_test(tool, *untrained, cut, tmp_path / "cut")
    found = np.array([w["scores"] for w in windows])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(expected[:, 0]) > 1e-3, "the windows must differ"


def test_csv_picture_and_annotated_copy(tiny_config, tool, tmp_path, capsys):
    config = tiny_config(tmp_path / "tiny.py")
    untrained = str(config), save_untrained(config)
    video = write_lossless(tmp_path / "a b.avi", noise(30), fps=10)
    labels, copy = tmp_path / "labels.txt", tmp_path / "copy.mp4"
    labels.write_text("a, b\nrowing\n")
    record = run(
        tool, untrained, video, tmp_path / "out", "--window", "1",
        "--labels", str(labels), "--annotated-video", str(copy), "--top-k", "1",
    )  # fmt: skip
    assert record["step"] == 0.5 and record["note"] == ""
    with open(tmp_path / "out" / "a b_avi_timeline.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(record["windows"]) == 5
    for row, window in zip(rows, record["windows"], strict=True):
        assert float(row["start"]) == window["start"]
        scores = [float(row["a, b"]), float(row["rowing"])]
        assert scores == window["scores"]
        assert scores[record["labels"].index(row["best"])] == max(scores)
    picture = cv2.imread(str(tmp_path / "out" / "a b_avi_timeline.png"))
    assert picture.shape[1] > 800 and np.ptp(picture) == 255
    copied = list(FramesInOrder(str(copy), "OpenCVInit"))
    assert len(copied) == 30
    plain = list(FramesInOrder(str(video)))
    text = np.abs(copied[9].image.astype(int) - plain[9].image).max(-1) > 70
    assert 0.01 < text.mean() < 0.7
    assert record["segments"][0]["label"] in capsys.readouterr().out


def test_timeline_of_another_video_is_kept(tiny_config, tool, tmp_path, capsys):
    config = tiny_config(tmp_path / "tiny.py")
    untrained, out = (str(config), save_untrained(config)), tmp_path / "out"
    videos = [tmp_path / name for name in ("x.mp4", "x.avi", "b/x.mp4")]
    videos[-1].parent.mkdir()
    for number, video in enumerate(videos):
        write_lossless(video, noise(10, number), fps=10)
    first = run(tool, untrained, videos[0], out, "--window", "1")
    other = run(tool, untrained, videos[1], out, "--window", "1")
    assert first["windows"] != other["windows"]
    before = {file: file.read_bytes() for file in out.iterdir()}
    with pytest.raises(SystemExit):
        run(tool, untrained, videos[2], out, "--window", "1")
    assert f"x_timeline.json is the result of {videos[0]}" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in out.iterdir()} == before
    again = run(tool, untrained, videos[0], out, "--window", "0.5")  # its own
    assert len(again["windows"]) > len(first["windows"]) and len(before) == 6


UNEVEN = [0, 40, 80, 500, 540, 1000, 2000, 2033, 2066, 2300]


def test_times_of_a_variable_frame_rate(tmp_path):
    frames = noise(10)
    video = write_at_times(tmp_path / "phone.mp4", frames, UNEVEN)
    for reader in ("DecordInit", "OpenCVInit", "PyAVInit"):
        times = [frame.time for frame in FramesInOrder(str(video), reader)]
        np.testing.assert_allclose(times, np.array(UNEVEN) / 1000, atol=2e-3)
    found = list(windows_of(FramesInOrder(str(video)), 0.5, 0.5))
    inside = [[frame.index for frame in window.frames] for window in found]
    # No frame begins from 1.5 to 2 s: the one of 1 s is still on display.
    assert inside[:5] == [[0, 1, 2], [3, 4], [5], [5], [6, 7, 8, 9]]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_an_annotated_copy_of_a_variable_frame_rate_keeps_its_times(tmp_path, suffix):
    """Whatever rate the header says: that of the first frames, in a Matroska file."""
    times = [100 * k for k in range(10)] + [1000 + 500 * k for k in range(10)]
    levels = np.linspace(20, 230, 20).astype(np.uint8)
    frames = np.broadcast_to(levels[:, None, None, None], (20, 64, 64, 3))
    video = write_at_times(tmp_path / f"phone.{suffix}", frames, times)
    write_annotated(str(video), lambda _: ["a"], tmp_path / "copy.mp4")
    for frame in FramesInOrder(str(tmp_path / "copy.mp4")):
        found = np.abs(levels - frame.image[40:].mean()).argmin()
        shown = [*times, times[-1] + 500][found : found + 2]
        # To a frame of the copy, of 0.3 s.
        assert shown[0] - 350 <= frame.time * 1000 <= shown[1] + 350


@pytest.mark.parametrize("suffix", ["mkv", "nut", "mp4", "avi"])
@pytest.mark.parametrize("first", [0, 5000])
def test_a_part_cut_out_of_a_file_is_whole(tmp_path, suffix, first):
    """Its first time stamp is not 0, and Matroska declares its last one."""
    times = [first + 100 * number for number in range(40)]
    if (suffix, first) == ("avi", 5000):
        pytest.skip("an avi file has no time stamps: the gap is a still picture")
    video = write_at_times(tmp_path / f"part.{suffix}", noise(40), times)
    frames = FramesInOrder(str(video), "OpenCVInit")
    assert len(list(frames)) == 40
    assert frames.note() == "" and frames.seconds == pytest.approx(4, abs=0.2)


def test_a_part_that_is_cut_off_is_noticed(tmp_path):
    times = [5000 + 100 * number for number in range(40)]
    video = write_at_times(tmp_path / "part.mkv", noise(40), times)
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    frames = FramesInOrder(str(video), "OpenCVInit")
    assert 5 < len(list(frames)) < 30 and "declares 3.9 s but" in frames.note()


def test_frames_are_those_of_the_reader(shared_videos):
    """Turned, coloured and chosen as by decord, which test.py reads with."""
    decord = pytest.importorskip("decord")
    cases = shared_videos.parent / "cases" / "videos"
    videos = [*shared_videos.iterdir(), *cases.iterdir()]
    read = 0
    for video in videos:
        try:
            reader = decord.VideoReader(str(video), num_threads=1)
            expected = [reader.next().asnumpy() for _ in range(12)]
        except decord.DECORDError:
            continue  # AV1, which decord cannot decode
        found = zip(FramesInOrder(str(video)), expected, strict=False)
        for frame, image in found:
            np.testing.assert_array_equal(frame.image, image, err_msg=video.name)
        read += 1
    assert read >= 9


class Given:
    """Frames at given times, which end at a given one."""

    def __init__(self, times, end):
        self.times, self.end = times, end

    def __iter__(self):
        for index, time in enumerate(self.times):
            yield Frame(index, time, np.zeros((1, 1, 3), np.uint8))


@pytest.mark.parametrize("seed", range(20))
def test_windows_against_their_definition(seed):
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.choice([0.04, 0.1, 0.9], 60, p=[0.6, 0.3, 0.1]))
    times -= times[0]
    end = float(times[-1]) + 0.04
    window, step = rng.uniform(0.1, 2.5, 2)
    found = list(windows_of(Given(times.tolist(), end), window, step))
    for number, one in enumerate(found):
        assert one.start == pytest.approx(number * step)
        assert one.end == pytest.approx(min(number * step + window, end))
        inside = np.flatnonzero((times >= one.start) & (times < one.start + window))
        if len(inside) == 0:
            inside = [np.searchsorted(times, one.start, side="right") - 1]
        assert [frame.index for frame in one.frames] == list(inside)
    assert found[-1].end == pytest.approx(end) or len(found) * step >= end
    assert all(one.end < end for one in found[:-1])


def test_few_frames_are_held():
    alive = 0

    class Counted(Frame):
        def __del__(self):
            nonlocal alive
            alive -= 1

    class Long(Given):
        def __iter__(self):
            nonlocal alive
            for index in range(3000):
                alive += 1
                yield Counted(index, index / 10, np.zeros((1, 1, 3), np.uint8))

    most = 0
    for window in windows_of(Long([], 300.0), 2.0, 0.5):
        most = max(most, alive)
        del window
    assert most < 60


def test_borders_of_segments():
    timeline = Timeline("a.mp4", labels=["x", "y"])
    for number, best in enumerate([0, 0, 0, 1, 1, 0]):
        timeline.starts.append(number * 1.0)
        timeline.ends.append(number * 1.0 + 2)
        timeline.scores.append(np.eye(2)[best] * 0.8 + 0.1)
    found = [(s.start, s.end, s.label) for s in timeline.segments()]
    assert found == [(0, 3.5, "x"), (3.5, 5.5, "y"), (5.5, 7, "x")]
    assert timeline.segments()[1].probability == pytest.approx(0.9)
    assert timeline.lines_at(4.4, 1) == [" 90.00%  y"]


def test_cut_off_video_keeps_what_it_has(
    tiny_config, tool, shared_videos, tmp_path, capsys
):
    config = tiny_config(tmp_path / "tiny.py")
    untrained = str(config), save_untrained(config)
    video = shared_videos / "corrupted.mp4"
    record = run(tool, untrained, video, tmp_path, "--window", "1", "--step", "1")
    said = capsys.readouterr().err
    assert "declares 5.0 s but can be read up to 2.8 s only" in said
    assert record["note"] in said and record["windows"][-1]["end"] == 2.8


def test_mistakes_are_said(tiny_config, tool, tmp_path, capsys):
    config = tiny_config(tmp_path / "tiny.py")
    untrained = str(config), save_untrained(config)
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    for video, options, sentence in [
        (tmp_path / "absent.mp4", [], "does not exist"),
        (text, [], "no frame can be read"),
        (text, ["--step", "0"], "--step: a number of seconds, more than 0"),
        (text, ["--window", "nan"], "--window: a number of seconds, more than 0"),
        (text, ["--annotated-video", "x.avi"], "--annotated-video takes an .mp4"),
    ]:
        with pytest.raises(SystemExit):
            run(tool, untrained, video, tmp_path, "--window", "1", *options)
        assert sentence in capsys.readouterr().err
