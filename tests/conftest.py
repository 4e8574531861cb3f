"""Fixtures shared by all tests: a tiny video dataset, tiny configs, real videos."""

import importlib.util
import re
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

import polynl_mm  # noqa: F401  (makes the stack work before anything imports it)

REPO = Path(__file__).resolve().parents[1]
TOOLS = REPO / "tools"

TINY_CONFIG = """
custom_imports = dict(imports=['polynl_mm'], allow_failed_imports=False)
default_scope = 'mmaction'
data_root = {data!r}
{preamble}
pipeline = [
    dict(type='DecordInit'),
    dict(type='SampleFrames', clip_len=4, frame_interval=1, num_clips=1),
    dict(type='DecordDecode'),
    dict(type='Flip', flip_ratio=0.5),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs'),
]
test_pipeline = [
    dict(type='DecordInit'),
    dict(type='SampleFrames', clip_len=4, frame_interval=1, num_clips=1,
         test_mode=True),
    dict(type='DecordDecode'),
    dict(type='Resize', scale=(64, 64), keep_ratio=False),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs'),
]
model = dict(
    type='Recognizer3D',
    backbone=dict(type='ResNet3dSlowOnly', depth=18, pretrained=None,
                  lateral=False, num_stages=1, base_channels=8,
                  spatial_strides=(1,), temporal_strides=(1,), dilations=(1,),
                  out_indices=(0,), inflate=(0,), conv1_kernel=(1, 3, 3),
                  conv1_stride_t=1, pool1_stride_t=1),
    cls_head=dict(type='I3DHead', in_channels={width}, num_classes=2,
                  spatial_type='avg', dropout_ratio=0.5, average_clips='prob'),
    data_preprocessor=dict(type='ActionDataPreprocessor', mean=[127.] * 3,
                           std=[60.] * 3, format_shape='NCTHW'))
dataset = dict(type='VideoDataset', ann_file=data_root + '/list.txt',
               data_prefix=dict(video=data_root + '/videos'))
train_dataloader = dict(
    batch_size=2, num_workers=1, persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(pipeline=pipeline, **dataset))
val_dataloader = dict(
    batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(pipeline=test_pipeline, test_mode=True, **dataset))
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(type='AccMetric')
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs={epochs}, val_begin=1,
                 val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.05, momentum=0.9))
default_hooks = dict(
    runtime_info=dict(type='RuntimeInfoHook'), timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=1, ignore_last=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=2,
                    save_best='auto'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    sync_buffers=dict(type='SyncBuffersHook'))
log_processor = dict(type='LogProcessor', window_size=1, by_epoch=True)
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='ActionVisualizer', vis_backends=vis_backends)
env_cfg = dict(cudnn_benchmark=False, dist_cfg=dict(backend='nccl'),
               mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0))
log_level = 'INFO'
"""


def pytest_collection_modifyitems(items) -> None:
    """Begin with the files that take longest, so that no worker ends long alone."""
    slow, tests = Counter(), Counter()
    for item in items:
        tests[item.path] += 1
        slow[item.path] += item.get_closest_marker("slow") is not None
    items.sort(key=lambda item: (-slow[item.path], -tests[item.path]))


def write_video(path: Path, frames: int = 8, size: int = 64, seed: int = 0) -> None:
    """Write a small mp4 of noise around a seed-dependent colour."""
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 255, 3)
    out = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (size, size))
    for _ in range(frames):
        noise = rng.integers(-20, 20, (size, size, 3))
        out.write(np.clip(base + noise, 0, 255).astype(np.uint8))
    out.release()


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory) -> Path:
    """A folder with ``list.txt`` and twelve mp4 files of 64 x 64 in ``videos/``."""
    root = tmp_path_factory.mktemp("tiny dataset")  # with a space, as users have
    (root / "videos").mkdir()
    for index in range(12):
        write_video(root / "videos" / f"{index}.mp4", seed=index)
    lines = [f"{index}.mp4 {index % 2}" for index in range(12)]
    (root / "list.txt").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="session")
def tiny_config(tiny_dataset):
    """Return a function that writes the tiny config: ``tiny_config(path, ...)``.

    ``epochs`` and ``width`` fill it in, ``preamble`` is put before the data, and
    ``extra`` is added at its end; ``data`` is another dataset folder.
    """

    def write(path, epochs=1, width=8, preamble="", extra="", data=None) -> Path:
        text = TINY_CONFIG.format(
            data=str(data or tiny_dataset),
            epochs=epochs,
            width=width,
            preamble=preamble,
        )
        path = Path(path)
        path.write_text(text + extra)
        return path

    return write


@pytest.fixture(scope="session")
def shared_videos() -> Path:
    """The folder of real clips beside the repository, where there is one."""
    folder = REPO.parent / "shared" / "videos"
    if not folder.is_dir():
        pytest.skip("the real clips (../shared/videos) are not on this machine")
    return folder


@pytest.fixture(autouse=True)
def _no_trust_is_left(monkeypatch):
    """Let no test inherit another's ``--trust-checkpoint``."""
    monkeypatch.setattr("polynl_mm.stack.safe_checkpoints._trusting", False)


@pytest.fixture(scope="session")
def tool():
    """Return a function that imports what stands behind a tool of ``tools/``."""

    def load(name: str):
        file = TOOLS / f"{name}.py"
        front = re.search(
            r"^from (polynl_mm\S+) import main$", file.read_text(), re.MULTILINE
        )
        if front:
            return importlib.import_module(front[1])
        # The launcher, which runs before polynl_mm is needed.
        spec = importlib.util.spec_from_file_location(name, file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def workers(monkeypatch) -> list:
    """The isolated processes that a test starts."""
    from polynl_mm.datasets import isolated_workers

    started = []

    class Counted(isolated_workers._Worker):
        def __init__(self, function):
            super().__init__(function)
            started.append(self)

    monkeypatch.setattr(isolated_workers, "_Worker", Counted)
    return started
