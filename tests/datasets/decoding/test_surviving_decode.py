import contextlib
import multiprocessing
import pickle
import shutil

import cv2
import numpy as np
import pytest
import torch
from damaged_videos import DAMAGES, damage, make_videos
from mmengine.config import ConfigDict
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.registry import DATASETS, TRANSFORMS, init_default_scope

from polynl_mm.datasets.decoding.bad_videos import (
    BadVideosHook,
    _surviving_step,
    base_datasets,
)
from polynl_mm.datasets.decoding.surviving_decode import (
    NothingReadableError,
    Surroundings,
    SurvivingDecode,
    UnreadableVideoError,
)
from polynl_mm.user_errors import UserError

REASONS = {
    "empty": "it is empty",
    "text": "it is damaged, cut off or not a video",
    "truncated": "it is damaged, cut off or not a video",
    "header-only": "it is damaged, cut off or not a video",
    "zero-frames": "it has no video stream",
    "wrong-extension": "it is a PNG picture",
    "folder": "it is a folder",
    "bit-flips": "it is damaged, cut off or not a video",
    "audio-only": "it has no video stream",
    "vanished": "it does not exist",
}
SAMPLE = dict(type="SampleFrames", clip_len=4, frame_interval=1, num_clips=1)
DECORD = [dict(type="DecordInit"), SAMPLE, dict(type="DecordDecode")]
OPENCV = [dict(type="OpenCVInit"), SAMPLE, dict(type="OpenCVDecode")]
PYAV = [dict(type="PyAVInit"), SAMPLE, dict(type="PyAVDecode")]


@pytest.fixture(scope="module", autouse=True)
def mmaction():
    import mmaction.datasets

    init_default_scope("mmaction")
    return mmaction.datasets


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return make_videos(tmp_path_factory.mktemp("videos") / "data", 12)


@pytest.fixture
def folder(videos, tmp_path):
    return shutil.copytree(videos, tmp_path / "data")


def dataset(folder, pipeline=DECORD, **more):
    return DATASETS.build(
        ConfigDict(
            type="VideoDataset",
            ann_file=str(folder / "list.txt"),
            data_prefix=dict(video=str(folder / "videos")),
            pipeline=pipeline,
            **more,
        )
    )


def bind(data, folder, epoch=0, mark=False):
    step, before = _surviving_step(data, "train")
    reports = str(folder / "reports")
    epoch = torch.tensor(epoch)
    step.bind(Surroundings(data, before, mark, 5, epoch, reports))
    return folder / "reports"


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("steps", [DECORD, OPENCV, PYAV], ids=["decord", "cv", "pyav"])
def test_every_damage_is_met_and_named(folder, steps, kind):
    path = folder / "videos" / "003.mp4"
    damage(path, kind)
    step = SurvivingDecode(steps)
    with pytest.raises(UnreadableVideoError) as met:
        step.decode({"filename": str(path), "start_index": 0})
    assert met.value.path == str(path)
    assert str(path) not in met.value.reason
    if steps is DECORD:
        assert met.value.reason == REASONS[kind]


def test_whole_files_come_out_as_from_the_steps_themselves(folder):
    plain, surviving = dataset(folder), dataset(folder)
    bind(surviving, folder)
    for index in range(len(plain)):
        np.random.seed(index)
        expected = plain[index]
        np.random.seed(index)
        found = surviving[index]
        assert found.keys() == expected.keys()
        assert found["label"] == expected["label"]
        np.testing.assert_array_equal(found["imgs"], expected["imgs"])
        assert found["avg_fps"] == expected["avg_fps"]
    assert not (folder / "reports").exists()


def test_replacement_depends_on_seed_epoch_and_index_alone(folder):
    for name in ("001.mp4", "002.mp4", "009.mp4"):
        damage(folder / "videos" / name, "truncated")

    def drawn(epoch, order=(1, 2, 9)):
        data = dataset(folder)
        bind(data, folder, epoch)
        return {index: data[index]["sample_idx"] for index in order}

    first = drawn(0)
    np.random.seed(1)
    assert drawn(0, order=(9, 0, 2, 1))[9] == first[9]
    assert drawn(0) == first
    assert len({tuple(drawn(epoch).values()) for epoch in range(4)}) == 4
    assert not set(first.values()) & {1, 2, 9}
    lines = (folder / "reports").read_text().splitlines()
    assert {line.split("\t")[0][-7:] for line in lines} == {
        "001.mp4",
        "002.mp4",
        "009.mp4",
    }


def test_replaced_test_sample_keeps_its_name(folder):
    damage(folder / "videos" / "003.mp4", "empty")
    data = dataset(folder, test_mode=True)
    bind(data, folder, mark=True)
    assert data[3]["filename"] == str(folder / "videos" / "003.mp4")
    assert data[3]["label"] < -(2**39)
    assert data[4]["label"] == 0


def test_nothing_readable_is_an_error(folder):
    for path in (folder / "videos").iterdir():
        path.unlink()
    data = dataset(folder)
    bind(data, folder)
    with pytest.raises(NothingReadableError, match=r"003\.mp4 cannot be read: it does"):
        data[3]


def test_a_workers_error_comes_out_as_its_sentence():
    worker = "Caught NothingReadableError in worker.\nTraceback\n  line 3\n"
    found = NothingReadableError(f"{worker}a.b.NothingReadableError: It is gone.\n")
    assert str(found) == "It is gone."


def test_without_the_hook_a_bad_file_is_an_error(folder):
    damage(folder / "videos" / "003.mp4", "empty")
    data = dataset(folder, [dict(type="SurvivingDecode", steps=DECORD)])
    with pytest.raises(UserError, match=r"003\.mp4 cannot be read: it is empty\. Surv"):
        data[3]


def test_step_goes_to_spawned_workers(folder):
    damage(folder / "videos" / "003.mp4", "empty")
    data = dataset(folder)
    bind(data, folder)
    assert pickle.loads(pickle.dumps(data))[3]["sample_idx"] == data[3]["sample_idx"]


def test_mistakes_of_the_config_are_not_bad_files(folder):
    data = dataset(folder, [DECORD[0], dict(SAMPLE, clip_len="four"), DECORD[2]])
    bind(data, folder)
    with pytest.raises(TypeError):
        data[0]


@pytest.mark.parametrize("mode", ["accurate", "efficient"])
def test_widths_that_decord_cannot_read(tmp_path, mode):
    path = tmp_path / "48.mp4"
    out = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 8, (48, 48))
    for index in range(6):
        out.write(np.full((48, 48, 3), 40 * index, np.uint8))
    out.release()
    step = SurvivingDecode([*DECORD[:2], dict(DECORD[2], mode=mode)])
    with pytest.raises(UnreadableVideoError, match="width at which decord cannot"):
        step.decode({"filename": str(path), "start_index": 0})
    frames = SurvivingDecode(OPENCV).decode({"filename": str(path), "start_index": 0})
    assert np.shape(frames["imgs"]) == (4, 48, 48, 3)


def read_flipped_files(path):
    step = SurvivingDecode(DECORD)
    data = path.read_bytes()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        flipped = bytearray(data)
        for place in rng.integers(0, len(data), int(rng.integers(1, 200))):
            flipped[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        with contextlib.suppress(UnreadableVideoError):
            step.decode({"filename": str(path), "start_index": 0})


def test_flipped_bits_do_not_crash_the_process(folder):
    path = folder / "videos" / "000.mp4"
    child = multiprocessing.get_context("fork").Process(
        target=read_flipped_files, args=(path,)
    )
    child.start()
    child.join()
    assert child.exitcode == 0


def test_frames_in_folders(tmp_path):
    lines = []
    for index in range(4):
        frames = tmp_path / f"{index}"
        frames.mkdir()
        for number in range(1, 7):
            picture = np.full((32, 32, 3), 10 * number, np.uint8)
            cv2.imwrite(str(frames / f"img_{number:05d}.jpg"), picture)
        lines.append(f"{index} 6 {index % 2}")
    (tmp_path / "list.txt").write_text("\n".join(lines))
    for file in (tmp_path / "2").iterdir():
        file.unlink()
    data = DATASETS.build(
        dict(
            type="RawframeDataset",
            ann_file=str(tmp_path / "list.txt"),
            data_prefix=dict(img=str(tmp_path)),
            pipeline=[SAMPLE, dict(type="RawFrameDecode")],
        )
    )
    reports = bind(data, tmp_path)
    assert data[2]["sample_idx"] != 2 and len(data[2]["imgs"]) == 4
    assert reports.read_text().startswith(f"{tmp_path / '2'}\t")


def test_datasets_inside_wrappers_are_found(folder):
    inner = [dataset(folder), dataset(folder, OPENCV)]
    assert list(base_datasets(ConcatDataset(inner))) == inner
    assert list(base_datasets(RepeatDataset(inner[0], times=2))) == inner[:1]
    step, before = _surviving_step(inner[1], "train")
    assert (len(step.steps), before) == (3, [])
    assert _surviving_step(inner[1], "train")[0] is step


def test_pipeline_without_a_decoder_is_refused(folder):
    data = dataset(folder, [SAMPLE])
    with pytest.raises(UserError, match=r"training pipeline of VideoDataset "):
        _surviving_step(data, "train")


@pytest.mark.parametrize(
    "wrong", [dict(max_share=5), dict(in_testing="skip"), dict(interval=0)]
)
def test_hook_refuses_unfit_arguments(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        BadVideosHook(**wrong)
    with pytest.raises(ValueError, match="needs steps"):
        TRANSFORMS.build(dict(type="SurvivingDecode", steps=[]))
