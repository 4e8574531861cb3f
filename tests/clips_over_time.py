# ruff: noqa: RUF005  (an option and its value stay together)
"""Videos of known frames: lossless, at uneven times, and concatenated."""

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest


def noise(count: int, seed: int = 0, size: int = 64) -> np.ndarray:
    """Return frames (count, size, size, 3) of one colour and fresh noise."""
    rng = np.random.default_rng(seed)
    base = rng.integers(40, 215, 3)
    frames = base + rng.integers(-30, 30, (count, size, size, 3))
    return frames.astype(np.uint8)


def write_lossless(path: Path, frames: np.ndarray, fps: float = 10) -> Path:
    """Write RGB frames to an .avi file that gives exactly these frames back."""
    size = frames.shape[2], frames.shape[1]
    out = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"FFV1"), fps, size)
    for frame in frames:
        out.write(np.ascontiguousarray(frame[..., ::-1]))
    out.release()
    return path


def write_at_times(path: Path, frames: np.ndarray, milliseconds: list[int]) -> Path:
    """Write frames that are shown at given times, as a phone's video."""
    av = pytest.importorskip("av", reason="a variable frame rate is written by PyAV")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height = frames.shape[2], frames.shape[1]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 2_000_000
        stream.codec_context.time_base = Fraction(1, 1000)
        for image, time in zip(frames, milliseconds, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


# Makes the tiny config that of a TSN: frames of four segments, each looked at alone.
AS_TSN = """
model = dict(
    type='Recognizer2D',
    backbone=dict(type='ResNet', depth=18, pretrained=None, norm_eval=False),
    cls_head=dict(type='TSNHead', num_classes=2, in_channels=512,
                  consensus=dict(type='AvgConsensus', dim=1), average_clips='prob'),
    data_preprocessor=dict(type='ActionDataPreprocessor', mean=[127.] * 3,
                           std=[60.] * 3, format_shape='NCHW'))
test_pipeline[1] = dict(type='SampleFrames', clip_len=1, frame_interval=1,
                        num_clips=4, test_mode=True)
test_pipeline[4]['input_format'] = 'NCHW'
"""


def save_untrained(config: Path) -> str:
    """Save random weights of a config's model beside it, and return their path."""
    import torch

    from polynl_mm.recognizers.building import build_recognizer
    from polynl_mm.recognizers.configs import load_config

    torch.manual_seed(0)
    model = build_recognizer(load_config(str(config)), str(config))
    path = Path(config).with_suffix(".pth")
    torch.save({"state_dict": model.state_dict()}, path)
    return str(path)


def scores_of_test(tool, config: str, checkpoint: str, clips: list, folder: Path):
    """Return the scores that tools/test.py gives to clips, each as a video of its own.

    Args:
        clips (list[np.ndarray]): Their frames.
        folder (Path): For the videos and what test.py writes.

    Returns:
        np.ndarray: (clips, classes).
    """
    import pickle

    videos = folder / "videos"
    videos.mkdir()
    names = [f"{number}.avi" for number in range(len(clips))]
    for name, frames in zip(names, clips, strict=True):
        write_lossless(videos / name, frames)
    (folder / "list.txt").write_text("".join(f"{name} 0\n" for name in names))
    tool("test").main(
        [config, checkpoint, "--dump", str(folder / "scores.pkl")]
        + ["--work-dir", str(folder / "work"), "--cfg-options"]
        + [f"test_dataloader.dataset.ann_file={folder}/list.txt"]
        + [f"test_dataloader.dataset.data_prefix.video={videos}"]
    )
    dumped = pickle.loads((folder / "scores.pkl").read_bytes())
    return np.stack([np.asarray(sample["pred_score"]) for sample in dumped])
