"""Decoding in parts equals decoding at once, and holds few full-size frames."""

import gc
import weakref

import numpy as np
import pytest
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope

from polynl_mm.datasets.decoding.decode_in_parts import DecodeInParts, decode_in_parts

CLIPS = dict(type="SampleFrames", clip_len=4, frame_interval=2, num_clips=5)
PIPELINE = [
    dict(type="DecordInit"),
    dict(CLIPS, test_mode=True),
    dict(type="DecordDecode"),
    dict(type="Resize", scale=(-1, 32)),
    dict(type="ThreeCrop", crop_size=32),
    dict(type="FormatShape", input_format="NCTHW"),
]


@pytest.fixture(autouse=True)
def mmaction2():
    from mmaction.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    init_default_scope("mmaction")


def test_equals_decoding_at_once(shared_videos):
    source = dict(
        filename=str(shared_videos / "two_people_1080p.mp4"),
        label=0,
        start_index=0,
        modality="RGB",
    )
    expected = Compose(PIPELINE)(dict(source))
    bounded = decode_in_parts(PIPELINE, frames=3)
    assert [step["type"] for step in bounded[1:4]] == [
        "SampleFrames",
        "DecodeInParts",
        "ThreeCrop",
    ]
    found = Compose(bounded)(dict(source))
    assert found["imgs"].shape[0] == 15  # 5 clips, 3 crops
    np.testing.assert_array_equal(found["imgs"], expected["imgs"])
    assert found["original_shape"] == expected["original_shape"] == (1080, 1920)
    for key in ("img_shape", "frame_inds", "scale_factor"):
        np.testing.assert_array_equal(found[key], expected[key])


class CountingDecoder:
    """Makes frames, and counts those that somebody still holds."""

    def __init__(self):
        self.held, self.decoded = [], []

    def __call__(self, results):
        gc.collect()
        frames = [
            np.full((8, 8, 3), index, np.uint8) for index in results["frame_inds"]
        ]
        alive = [ref for ref in self.held if ref() is not None]
        self.held = alive + [weakref.ref(frame) for frame in frames]
        self.decoded.extend(results["frame_inds"])
        results["imgs"] = frames
        self.most = max(getattr(self, "most", 0), len(self.held))
        return results


def halve(results):
    return {**results, "imgs": [frame[::2, ::2].copy() for frame in results["imgs"]]}


def test_holds_few_frames_and_shares_none():
    decoder = CountingDecoder()
    step = DecodeInParts(decoder, halve, frames=4)
    wanted = np.array([9, 3, 3, 7, 1, 9, 20, 2, 8, 11, 5])
    images = step(dict(frame_inds=wanted))["imgs"]
    assert [int(image[0, 0, 0]) for image in images] == wanted.tolist()
    assert decoder.decoded == sorted(set(wanted.tolist()))
    assert decoder.most <= 2 * 4  # the part before is freed while one is decoded
    images[1][:] = 0  # flips work in place
    assert images[2][0, 0, 0] == 3


def test_leaves_other_pipelines_alone():
    lazy = [dict(type="DecordDecode"), dict(type="Resize", scale=(8, 8), lazy=True)]
    other = [dict(type="DecordDecode"), dict(type="CenterCrop", crop_size=8)]
    assert decode_in_parts(lazy) == lazy
    assert decode_in_parts(other) == other
    with pytest.raises(ValueError, match="whole number from 1"):
        DecodeInParts(halve, halve, frames=0)
