"""One resized video: what decord reads of it is what it reads of its source."""

from fractions import Fraction

import cv2
import decord
import numpy as np
import pytest

from polynl_mm.datasets.preparation.every_frame import DamagedVideoError
from polynl_mm.datasets.preparation.resized_video import (
    ResizeParameters,
    resize_video,
    target_size,
)

av = pytest.importorskip("av", reason="needs PyAV: pip install av")

SMALLER = ResizeParameters(short_side=64)
FRAMES = 10
BT709, BT470BG, SMPTE170M, SMPTE240M, BT2020 = 1, 5, 6, 7, 9
LIMITED, FULL = 1, 2
# Of mp4's track headers: the picture is turned clockwise by so many degrees.
ONE = 1 << 16
MATRICES = {
    90: (0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30),
    180: (-ONE, 0, 0, 0, -ONE, 0, 0, 0, 1 << 30),
    270: (0, -ONE, 0, ONE, 0, 0, 0, 0, 1 << 30),
    "mirrored": (-ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30),
    "upside down": (ONE, 0, 0, 0, -ONE, 0, 0, 0, 1 << 30),
}


def picture(width, height, index):
    """Return a picture (H, W, 3) whose corners and place in time can be told."""
    x, y = np.linspace(0, 1, width), np.linspace(0, 1, height)[:, None]
    red = 30 + 12 * index + 90 * x + 0 * y
    green = 20 + 200 * y + 0 * x
    blue = 220 - 180 * x + 0 * y
    return np.stack([red, green, blue], axis=2).astype(np.uint8)


def add(container, codec, size, pix_fmt, rate=25, colours=(None, None), ratio=None):
    stream = container.add_stream(codec, rate=rate)
    (stream.width, stream.height), stream.pix_fmt = size, pix_fmt
    context = stream.codec_context
    context.thread_count = 1
    if codec.startswith("libx26"):
        stream.options = {"preset": "ultrafast", "crf": "5"}
    if codec in ("mpeg4", "mpeg2video", "mjpeg", "wmv2", "libvpx-vp9"):
        context.bit_rate = 4_000_000
    if colours[0]:
        context.colorspace, context.color_range = colours
    if ratio:
        context.sample_aspect_ratio = ratio
    return stream


def write(
    path,
    codec="libx264",
    size=(160, 120),
    pix_fmt="yuv420p",
    times=range(FRAMES),
    turned=None,
    cover=False,
    sound=False,
    options=None,
    **form,
):
    """Write a video; of an unusual kind, if asked for."""
    with av.open(str(path), "w") as container:
        if sound:
            audio = container.add_stream("mp2", rate=32000)
        if cover:
            front = add(container, "mjpeg", (400, 400), "yuvj420p")
        stream = add(container, codec, size, pix_fmt, **form)
        stream.options = {**stream.options, **(options or {})}
        if sound:
            silence = np.zeros((1, 2 * 16000), np.int16)
            chunk = av.AudioFrame.from_ndarray(silence, format="s16", layout="stereo")
            chunk.sample_rate = 32000
            container.mux(audio.encode(chunk) + audio.encode(None))
        if cover:
            grey = np.full((400, 400, 3), 128, np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
            frame.pts = 0
            container.mux(front.encode(frame) + front.encode(None))
        for index, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(*size, index), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    if turned:
        content = bytearray(path.read_bytes())
        place = content.index(b"tkhd") + 44
        matrix = np.array(MATRICES[turned], ">i4").tobytes()
        content[place : place + len(matrix)] = matrix
        path.write_bytes(content)
    return path


def by_decord(path):
    reader = decord.VideoReader(str(path), num_threads=1)
    return reader.get_batch(range(len(reader))).asnumpy(), reader.get_avg_fps()


def by_opencv(path):
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        read, frame = capture.read()
        if not read:
            return np.stack(frames), capture.get(cv2.CAP_PROP_FPS)
        frames.append(frame[:, :, ::-1])


def assert_same(source, target, read=by_decord):
    """Assert that two videos have the same frames, but for their size."""
    (before, rate), (after, new_rate) = read(source), by_decord(target)
    assert len(before) == len(after)
    assert new_rate == pytest.approx(rate, rel=1e-3)
    height, width = after.shape[1:3]
    assert width / height == pytest.approx(before.shape[2] / before.shape[1], rel=0.06)
    for old, new in zip(before, after, strict=True):
        old = cv2.resize(old, (width, height), interpolation=cv2.INTER_AREA)
        assert np.abs(old.astype(int) - new).mean() < 3
    with av.open(str(target)) as container:
        assert [x.codec_context.codec.canonical_name for x in container.streams] == [
            "h264"
        ]
    assert target.suffix == ".mp4" and target.read_bytes()[4:8] == b"ftyp"


KINDS = {
    "turned by 90.mp4": dict(turned=90),
    "turned by 180.mp4": dict(turned=180),
    "turned by 270.mp4": dict(turned=270),
    "mirrored.mp4": dict(turned="mirrored"),
    "upside down.mp4": dict(turned="upside down"),
    "bt709.mp4": dict(colours=(BT709, LIMITED)),
    "bt709, all values.mp4": dict(colours=(BT709, FULL)),
    "bt470bg, all values.mp4": dict(colours=(BT470BG, FULL)),
    "smpte170m.mp4": dict(colours=(SMPTE170M, LIMITED)),
    "smpte240m.mp4": dict(colours=(SMPTE240M, LIMITED)),
    "bt2020 of 10 bits.mkv": dict(colours=(BT2020, LIMITED), pix_fmt="yuv420p10le"),
    "4:2:2.mp4": dict(pix_fmt="yuv422p"),
    "4:4:4.mp4": dict(pix_fmt="yuv444p"),
    "grey.mkv": dict(codec="ffv1", pix_fmt="gray"),
    "grey h264.mp4": dict(pix_fmt="gray"),
    "alpha.mov": dict(codec="png", pix_fmt="rgba"),
    "rgb.avi": dict(codec="rawvideo", pix_fmt="bgr24"),
    "cover picture first.mkv": dict(cover=True),
    "sound first.mp4": dict(sound=True),
    "odd.mkv": dict(codec="ffv1", size=(161, 121), pix_fmt="yuv444p"),
    "high.mp4": dict(size=(80, 180)),
    "irregular.mkv": dict(times=[0, 1, 2, 5, 6, 9, 20, 21, 22, 40]),
    "late.mp4": dict(times=range(100, 110)),
    "early.mp4": dict(times=range(-4, 6)),
    "wide pixels, turned.mp4": dict(ratio=Fraction(4, 3), turned=90),
    "interlaced.mp4": dict(options={"x264-params": "interlaced=1"}),
    "open groups.mp4": dict(
        times=range(30),
        options={"x264-params": "open-gop=1:keyint=8:bframes=3:b-adapt=0:scenecut=0"},
    ),
    "one frame.mp4": dict(times=[0]),
    "29.97.avi": dict(codec="mpeg4", rate=Fraction(30000, 1001), times=[None] * 9),
    "with gaps.avi": dict(codec="mpeg4", times=[0, 1, 2, 6, 7, 8, 12, 20, 21]),
    "vp9.webm": dict(codec="libvpx-vp9", options={"cpu-used": "8"}),
    "hevc.mp4": dict(codec="libx265"),
    "mpeg2.mpg": dict(codec="mpeg2video"),
    "jpeg.avi": dict(codec="mjpeg", pix_fmt="yuvj420p"),
    "wmv.wmv": dict(codec="wmv2"),
}


@pytest.mark.parametrize("name", KINDS)
def test_frames_are_those_of_the_source(tmp_path, name):
    try:
        source = write(tmp_path / name, **KINDS[name])
    except av.error.ArgumentError:
        pytest.skip("PyAV cannot open this encoder in one process with decord")
    target = tmp_path / "resized.mp4"
    assert resize_video(source, target, SMALLER) == "resized"
    assert_same(source, target)


@pytest.mark.parametrize("turned", [None, 90])
def test_what_decord_cannot_read(tmp_path, turned):
    source = write(tmp_path / "a.mp4", codec="libsvtav1", colours=(BT709, LIMITED))
    source = write(tmp_path / "a.mp4", codec="libsvtav1", turned=turned)
    with pytest.raises(decord.DECORDError, match="cannot find video stream"):
        by_decord(source)
    for parameters, what in ((SMALLER, "resized"), (ResizeParameters(), "encoded")):
        assert resize_video(source, tmp_path / "b.mp4", parameters) == what
        assert_same(source, tmp_path / "b.mp4", by_opencv)


@pytest.mark.parametrize(
    ("size", "turned"), [((48, 64), None), ((72, 100), None), ((100, 48), 270)]
)
def test_widths_that_decord_cannot_read(tmp_path, size, turned):
    source = write(tmp_path / "a.mp4", size=size, turned=turned)
    with pytest.raises(decord.DECORDError):
        by_decord(source)
    assert resize_video(source, tmp_path / "b.mp4", ResizeParameters()) == "encoded"
    assert_same(source, tmp_path / "b.mp4", by_opencv)
    assert by_decord(tmp_path / "b.mp4")[0].shape[2] in (50, 74)


def test_small_videos_are_copied_if_they_are_h264(tmp_path):
    target = tmp_path / "b.mp4"
    source = write(tmp_path / "a.MP4", turned=90)
    assert resize_video(source, target, ResizeParameters()) == "copied"
    assert target.read_bytes() == source.read_bytes()
    for name in ("cover picture first.mkv", "hevc.mp4", "wmv.wmv", "alpha.mov"):
        source = write(tmp_path / name, **KINDS[name])
        assert resize_video(source, target, ResizeParameters()) == "encoded"
        assert_same(source, target)
        assert by_decord(target)[0].shape == (FRAMES, 120, 160, 3)
    disguised = write(tmp_path / "a.mkv").rename(tmp_path / "a.mp4")
    assert resize_video(disguised, target, ResizeParameters()) == "encoded"


def test_every_reader_sees_the_same_colours(tmp_path):
    source = write(tmp_path / "a.mp4", colours=(BT709, FULL))
    resize_video(source, tmp_path / "b.mp4", SMALLER)
    with av.open(str(tmp_path / "b.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_range) == (SMPTE170M, LIMITED)
    decords, _ = by_decord(tmp_path / "b.mp4")
    opencvs, _ = by_opencv(tmp_path / "b.mp4")
    assert np.abs(decords.astype(int) - opencvs).mean() < 1


def test_pixel_ratios_turn_with_the_picture(tmp_path):
    source = write(tmp_path / "a.mp4", ratio=Fraction(4, 3), turned=270)
    resize_video(source, tmp_path / "b.mp4", SMALLER)
    with av.open(str(tmp_path / "b.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.sample_aspect_ratio == Fraction(3, 4)
        assert (stream.width, stream.height) == (64, 86)


def test_trimmed_videos_are_not_damaged(tmp_path):
    """Phones trim by an edit list, which hides frames that the file counts."""
    source = write(
        tmp_path / "whole.mp4", options={"g": "4", "bf": "0"}, times=[*range(40)]
    )
    with (
        av.open(str(source)) as whole,
        av.open(str(tmp_path / "a.mp4"), "w") as trimmed,
    ):
        stream = whole.streams.video[0]
        copy = trimmed.add_stream_from_template(stream)
        for packet in whole.demux(stream):
            if packet.dts is not None:
                packet.pts -= int(10 / 25 / stream.time_base)
                packet.dts -= int(10 / 25 / stream.time_base)
                packet.stream = copy
                trimmed.mux(packet)
    assert len(by_decord(tmp_path / "a.mp4")[0]) < 36
    resize_video(tmp_path / "a.mp4", tmp_path / "b.mp4", SMALLER)
    assert_same(tmp_path / "a.mp4", tmp_path / "b.mp4")


def test_no_frames(tmp_path):
    with (
        av.open(str(write(tmp_path / "a.mp4"))) as whole,
        av.open(str(tmp_path / "none.mp4"), "w") as empty,
    ):
        empty.add_stream_from_template(whole.streams.video[0])
        empty.start_encoding()
    with pytest.raises(DamagedVideoError, match=r"has no (video stream|frames)"):
        resize_video(tmp_path / "none.mp4", tmp_path / "b.mp4", SMALLER)
    assert not (tmp_path / "b.mp4").exists()


@pytest.mark.parametrize(
    ("size", "short_side", "result"),
    [
        ((340, 256), 256, (340, 256)),
        ((320, 240), 256, (342, 256)),
        ((1920, 1080), 256, (456, 256)),
        ((1080, 1920), 320, (320, 568)),
        ((300, 300), 256, (256, 256)),
        ((101, 33), 32, (98, 32)),
        ((360, 640), 72, (74, 128)),  # decord cannot read a width of 72
        ((48, 36), 36, (50, 36)),
    ],
)
def test_target_size(size, short_side, result):
    assert target_size(*size, short_side) == result


def test_the_cases_that_were_met(tmp_path, shared_videos):
    folder = shared_videos.parent / "cases" / "videos"
    if not folder.is_dir():
        pytest.skip("the cases (../shared/cases/videos) are not on this machine")
    for source in folder.iterdir():
        for parameters in (ResizeParameters(short_side=96), ResizeParameters()):
            target = tmp_path / "b.mp4"
            resize_video(source, target, parameters)
            assert_same(
                source, target, by_opencv if "av1" in source.name else by_decord
            )
