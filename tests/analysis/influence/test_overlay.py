"""Places of the video, the input and the features, and maps drawn over frames."""

import cv2
import numpy as np
import pytest
import torch

from polynl_mm.analysis.influence.overlay import (
    over_frame,
    to_feature,
    to_input,
    to_video,
)
from polynl_mm.analysis.influence.pictures import (
    Band,
    choose_frames,
    draw_strip,
    write_film,
)
from polynl_mm.recognizers.traced_clip import TracedClip


@pytest.fixture
def clip():
    """The middle 32 x 32 pixels of 4 frames of 40 x 64, at half their size."""
    return TracedClip(
        video="a.mp4",
        inputs=torch.zeros(1, 3, 4, 16, 16),
        frames=[np.full((40, 64, 3), 100, np.uint8)] * 4,
        seconds=np.array([1.0, 1.5, 2.0, 2.5]),
        columns=16.5 + 2 * np.arange(16),
        rows=4.5 + 2 * np.arange(16),
    )


def test_features_and_input_are_inverse():
    size, grid = (8, 64, 48), (4, 8, 6)
    for feature in np.ndindex(*grid):
        assert to_feature(to_input(feature, size, grid), size, grid) == feature
    assert to_feature((7, 63, 47), size, grid) == (3, 7, 5)


def test_strided_layers_are_centred_on_every_so_many_th_pixel():
    """That is what the maps assume: asked of a network by its gradient."""
    layers = [
        torch.nn.Conv2d(1, 1, 7, stride=2, padding=3, bias=False),
        torch.nn.MaxPool2d(3, stride=2, padding=1),
        torch.nn.Conv2d(1, 1, 3, stride=2, padding=1, bias=False),
    ]
    network = torch.nn.Sequential(*layers)
    for layer in (layers[0], layers[2]):
        torch.nn.init.ones_(layer.weight)
    # Without noise, of equal values, the first is the maximum.
    x = torch.rand(200, 1, 64, 64, requires_grad=True)
    network(x)[:, 0, 4, 3].sum().backward()
    weight = x.grad.sum(dim=(0, 1))
    places = torch.arange(64.0)
    row = (weight.sum(1) * places).sum() / weight.sum()
    column = (weight.sum(0) * places).sum() / weight.sum()
    assert abs(row - 32) < 0.5 and abs(column - 24) < 0.5


def test_map_lies_where_its_features_are(clip):
    values = np.zeros((2, 4, 4))
    values[1, 2, 1] = 5
    drawn = over_frame(clip, values, 2)  # the second half of the clip
    assert drawn.shape == (40, 64)
    # Input row 8 and column 4, of every second pixel from 4.5 and from 16.5.
    assert np.unravel_index(np.nanargmax(drawn), drawn.shape) in [(20, 24), (21, 25)]
    assert np.nanmax(drawn) == pytest.approx(5, rel=0.15)
    assert np.isfinite(drawn[4:36, 16:48]).all()
    assert np.isnan(drawn[:3]).all() and np.isnan(drawn[:, :15]).all()
    assert np.isnan(drawn[38:]).all() and np.isnan(drawn[:, 50:]).all()
    assert np.nanmax(over_frame(clip, values, 0)) == 0
    frame, x, y = to_video(clip, to_input((1, 2, 1), clip.size, values.shape))
    assert (frame, x, y) == (2, 24.5, 20.5)
    assert clip.find(x, y, 2.0) == (2, 8, 4)


def test_pictures_show_the_map_and_the_mark(clip, tmp_path):
    values = np.zeros((4, 8, 8))
    values[2, 4, 4], values[0, 4, 4] = 1, -1
    bands = [
        Band("shares", "times", values, True),
        Band("lengths", "length", np.abs(values), False),
    ]
    path, mark = tmp_path / "strip.png", (1, 30.0, 20.0)
    draw_strip(clip, bands, path, title="a title", mark=mark)
    picture = cv2.imread(str(path)).astype(int)
    blue, green, red = np.moveaxis(picture, 2, 0)
    assert ((red > 230) & (green > 190) & (blue < 60)).sum() > 100  # the mark's yellow
    assert (red - blue > 60).any() and (blue - red > 60).any()  # both signs
    film = tmp_path / "film.mp4"
    write_film(clip, bands[0], film, mark)
    reader = cv2.VideoCapture(str(film))
    frames = [reader.read()[1].astype(int) for _ in range(4)]
    assert reader.get(cv2.CAP_PROP_FPS) == 2 and frames[0].shape == (40, 64, 3)
    assert not reader.read()[0]
    middle = [frame[16:24, 28:36].mean(axis=(0, 1)) for frame in frames]
    assert middle[2][2] > middle[2][0] + 10  # red, where the share is positive
    assert middle[0][0] > middle[0][2] + 10
    assert sorted(p.name for p in tmp_path.iterdir()) == ["film.mp4", "strip.png"]


def test_frames_of_a_strip():
    assert choose_frames(3, [1]) == [0, 1, 2]
    assert choose_frames(32, [5, 6]) == sorted(choose_frames(32, [5, 6]))
    assert {5, 6} <= set(choose_frames(32, [5, 6]))
    assert len(choose_frames(100, [0, 99])) == 8


def test_one_strong_position_hides_no_others():
    values = np.ones((4, 14, 14))
    values[0, 0, 0] = 1000
    assert Band("", "", values, False).limits == (0, 1)
    assert Band("", "", np.zeros((1, 2, 2)), True).limits == (-1, 1)
