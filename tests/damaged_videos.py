"""Videos damaged in ten different ways, and a set of which some are."""

import shutil
from pathlib import Path

import av
import cv2
import numpy as np

from polynl_mm.datasets.bookends import write_video
from polynl_mm.datasets.bookends_clips import (
    BookendsParameters,
    plan_clips,
    render_clip,
)


def _empty(path, data):
    path.write_bytes(b"")


def _text(path, data):
    path.write_text("Not a video, but its download page.\n" * 40)


def _truncated(path, data):
    path.write_bytes(data[: len(data) // 2])


def _header_only(path, data):
    """All of the index, none of the frames."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as file:
        stream = file.add_stream("mpeg4", rate=8)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for _ in range(8):
            picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))
            file.mux(stream.encode(picture))
        file.mux(stream.encode(None))
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"mdat") + 4])


def _zero_frames(path, data):
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=8)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        file.start_encoding()


def _wrong_extension(path, data):
    _, picture = cv2.imencode(".png", np.zeros((32, 32, 3), np.uint8))
    path.write_bytes(picture.tobytes())


def _folder(path, data):
    path.unlink(missing_ok=True)
    path.mkdir()


def _bit_flips(path, data):
    flips = 1 << np.random.default_rng(0).integers(0, 8, len(data))
    path.write_bytes((np.frombuffer(data, np.uint8) ^ flips.astype(np.uint8)).tobytes())


def _audio_only(path, data):
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=44100)
        for _ in range(10):
            sound = av.AudioFrame.from_ndarray(
                np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
            )
            sound.rate = 44100
            file.mux(stream.encode(sound))
        file.mux(stream.encode(None))


def _vanished(path, data):
    path.unlink()


DAMAGES = {
    "empty": _empty,
    "text": _text,
    "truncated": _truncated,
    "header-only": _header_only,
    "zero-frames": _zero_frames,
    "wrong-extension": _wrong_extension,
    "folder": _folder,
    "bit-flips": _bit_flips,
    "audio-only": _audio_only,
    "vanished": _vanished,
}


def damage(path: Path, kind: str) -> None:
    """Damage a whole video file."""
    DAMAGES[kind](path, path.read_bytes())


def make_videos(root: Path, count: int) -> Path:
    """Generate ``videos/NNN.mp4`` and ``list.txt``: Bookends clips of 8 frames."""
    (root / "videos").mkdir(parents=True)
    parameters = BookendsParameters(train=count, val=2, size=32, frames=8)
    clips = plan_clips(parameters, "train")
    for clip in clips:
        path = root / "videos" / f"{clip.index:03d}.mp4"
        write_video(path, render_clip(parameters, clip))
    (root / "list.txt").write_text(
        "".join(f"{clip.index:03d}.mp4 {clip.label}\n" for clip in clips)
    )
    return root


def damaged_copy(root: Path, target: Path, each: int) -> tuple[Path, list[Path]]:
    """Copy the videos and damage so many of them in each of the ten ways.

    Returns the copy, and the damaged files, spread over the list.
    """
    shutil.copytree(root, target)
    videos = sorted((target / "videos").iterdir())
    kinds = list(DAMAGES) * each
    chosen = np.random.default_rng(0).choice(len(videos), len(kinds), replace=False)
    damaged = [videos[index] for index in chosen]
    for path, kind in zip(damaged, kinds, strict=True):
        damage(path, kind)
    return target, damaged
