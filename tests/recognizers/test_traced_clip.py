"""Clips as a model sees them, and where their pixels are in the video."""

import cv2
import numpy as np
import pytest
from mmengine.registry import init_default_scope

from polynl_mm.recognizers.traced_clip import trace_clip
from polynl_mm.user_errors import UserError


@pytest.fixture(scope="module", autouse=True)
def registered():
    from mmaction.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    init_default_scope("mmaction")


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Forty frames of 128 x 96 at 10 a second; red is x, green y, blue the frame."""
    path = tmp_path_factory.mktemp("traced") / "places.mp4"
    size = (128, 96)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, size)
    rows, columns = np.mgrid[:96, :128]
    for number in range(40):
        blue = np.full_like(rows, 5 * number)
        picture = np.stack([blue, 2 * rows, 2 * columns], axis=2)
        writer.write(picture.astype(np.uint8))
    writer.release()
    return str(path)


def pipeline(*geometry, clips=1, length=4, layout="NCTHW"):
    return [
        dict(type="DecordInit"),
        dict(
            type="SampleFrames",
            clip_len=length,
            frame_interval=3,
            num_clips=clips,
            test_mode=True,
        ),
        dict(type="DecordDecode"),
        *geometry,
        dict(type="FormatShape", input_format=layout),
        dict(type="PackActionInputs"),
    ]


RESIZE = dict(type="Resize", scale=(-1, 48))


def check(clip, frames, height, width):
    """Compare the trace with what the colours of the input say."""
    pixels = clip.inputs.float()
    pixels = pixels[0].transpose(0, 1) if pixels.dim() == 5 else pixels
    assert pixels.shape == (frames, 3, height, width)
    assert clip.size == (frames, height, width)
    inner = slice(2, -2)  # compression smears the edges
    red, green = pixels.mean(0)[:2, inner, inner].numpy()
    assert np.abs(red.mean(0) / 2 - clip.columns[inner]).max() < 2
    assert np.abs(green.mean(1) / 2 - clip.rows[inner]).max() < 2
    numbers = pixels[:, 2].mean(dim=(1, 2)).numpy() / 5
    assert np.abs(numbers - clip.seconds * 10).max() < 1
    for frame, second in zip(clip.frames, clip.seconds, strict=True):
        assert frame.shape == (96, 128, 3)
        assert abs(frame[..., 2].mean() / 50 - second) < 0.1


@pytest.mark.parametrize(
    "geometry, size",
    [
        ([], (96, 128)),
        ([RESIZE], (48, 64)),
        ([RESIZE, dict(type="CenterCrop", crop_size=32)], (32, 32)),
        ([dict(type="Resize", scale=(40, 60), keep_ratio=False)], (60, 40)),
    ],
    ids=["as it is", "resized", "cropped", "squeezed"],
)
def test_places_are_those_of_the_pixels(video, geometry, size):
    clip = trace_clip(video, pipeline(*geometry), "a config")
    check(clip, 4, *size)
    assert clip.note == "" and clip.frame_rate == pytest.approx(10 / 3)


def test_frames_of_a_network_of_images(video):
    steps = pipeline(RESIZE, clips=8, length=1, layout="NCHW")
    clip = trace_clip(video, steps, "a config")
    assert clip.inputs.shape == (8, 3, 48, 64)
    check(clip, 8, 48, 64)


@pytest.mark.parametrize("layout, length", [("NCTHW", 4), ("NCHW", 1)])
def test_of_many_views_the_first_is_taken(video, layout, length):
    crop = dict(type="ThreeCrop", crop_size=48)
    steps = pipeline(RESIZE, crop, clips=3, length=length, layout=layout)
    clip = trace_clip(video, steps, "a config")
    assert clip.note == "the first of 9 views"
    check(clip, 4 if layout == "NCTHW" else 3, 48, 48)


def test_places_are_found_or_refused(video):
    crop = dict(type="CenterCrop", crop_size=32)
    clip = trace_clip(video, pipeline(RESIZE, crop), "a config")
    frame, row, column = clip.find(64, 48, clip.seconds[2])
    assert (frame, row, column) == (2, 16, 16)
    for place, said in {
        (5, 48, 1.5): "does not see x=5 of .*columns 3[0-9] to 9",
        (64, 2, 1.5): "does not see y=2 ",
        (64, 48, 3.9): r"does not see t=3\.9 .*of t its clip has 1\..* to 2\.",
        (float("nan"), 48, 1.5): "does not see x=nan",
    }.items():
        with pytest.raises(UserError, match=said):
            clip.find(*place)


def test_what_moves_pixels_otherwise_is_refused(video):
    class Transposed:
        def __call__(self, results):
            turned = [np.swapaxes(img, 0, 1) for img in results["imgs"]]
            return dict(results, imgs=turned)

    with pytest.raises(UserError, match="does not only resize and crop"):
        trace_clip(video, pipeline(dict(type=Transposed)), "a config")


def test_damaged_videos_say_so(shared_videos):
    clip = trace_clip(str(shared_videos / "corrupted.mp4"), pipeline(RESIZE), "a")
    assert "28 of 50 frames can be read" in clip.note
    assert clip.inputs.shape[2] == 4
