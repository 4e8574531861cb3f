"""The documentation's story by its own commands: from videos to a confusion matrix.

data/README.md (resize, lists, check), docs/train.md (fine-tuning with two processes),
docs/evaluate.md (ten clips by three crops, confusion matrix), on a dataset of the shape
of UCF-101, made of real clips and generated ones.
"""

import shutil
import subprocess
import sys

import programs
import pytest
import torch
from conftest import REPO, write_video
from mmengine.config import Config

CONFIG = (
    "configs/ucf101/slowonly_kinetics400-pretrained-r50-polynl_8xb8-8x8x1-30e_"
    "ucf101-split1-rgb.py"
)
BASE = CONFIG.replace("-polynl", "")
# The network and clips made small, for the time of the test; all else is the config's.
THIN = [
    "model.backbone.depth=18",
    "model.backbone.base_channels=8",
    "model.cls_head.in_channels=64",
    "model.cls_head.num_classes=3",
]
CLASSES = ("ArmWrestling", "FlippingPancake", "Standing")
REAL = {
    "arm_wrestling_kinetics.mp4": "ArmWrestling",
    "flipping_a_pancake.mkv": "FlippingPancake",
    "clip_256p.mp4": "Standing",
    "corrupted.mp4": "Standing",  # the damaged one
}


@pytest.fixture
def downloads(tmp_path, shared_videos):
    """Official lists and videos: four real clips and eight generated ones."""
    names = {"train": [], "test": []}
    for index, (clip, label) in enumerate(REAL.items()):
        _place(names["train"], tmp_path, label, index + 1, shared_videos / clip)
    for index in range(8):
        video = tmp_path / "generated.mp4"
        write_video(video, frames=40, size=96, seed=index)
        part = "train" if index < 4 else "test"
        _place(names[part], tmp_path, CLASSES[index % 3], index + 10, video)
    splits = tmp_path / "ucfTrainTestlist"
    splits.mkdir()
    numbered = [f"{i} {name}" for i, name in enumerate(CLASSES, 1)]
    (splits / "classInd.txt").write_text("\r\n".join(numbered) + "\r\n")
    train = [f"{x} {CLASSES.index(x.split('/')[0]) + 1}" for x in names["train"]]
    (splits / "trainlist01.txt").write_text("\r\n".join(train) + "\r\n")
    (splits / "testlist01.txt").write_text("\r\n".join(names["test"]) + "\r\n")
    return tmp_path


def _place(names, folder, label, group, video):
    stem = f"{label}/v_{label}_g{group:02d}_c01"
    target = folder / "downloads" / f"{stem}{video.suffix}"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(video, target)
    names.append(f"{stem}.avi")


def run(*command, cwd, status=0):
    """Run one documented command; return what it printed."""
    done = programs.run(
        command,
        timeout=400,
        env={"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"},
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == status, done.stdout[-3000:]
    return done.stdout


def test_from_videos_to_a_confusion_matrix(downloads, tool):
    pytest.importorskip("av", reason="needs PyAV: pip install av")
    tools, data = REPO / "tools", downloads / "data"
    python = sys.executable

    said = run(
        *(python, tools / "data/resize_videos.py", "downloads", "data/videos"),
        *("--short-side", 64, "-j", 2),
        cwd=downloads,
        status=1,  # one video is damaged, and said to be
    )
    assert "g04_c01" in said
    said = run(
        *(python, tools / "data/ucf101/build_annotations.py", "--split", 1),
        *("--splits", "ucfTrainTestlist", "--videos", "data/videos", "--out", "data"),
        cwd=downloads,
    )
    assert "7 of 8 videos" in said and "4 videos" in said
    assert "g04_c01" in (data / "ucf101_missing.csv").read_text()
    # What a broken download leaves.
    broken = next(data.glob("videos/FlippingPancake/*g02*"))
    broken.write_bytes(broken.read_bytes()[:300])
    said = run(
        *(python, tools / "data/check_videos.py", "-j", 2),
        *("data/ucf101_train_split_1_videos.txt", "--videos", "data/videos"),
        cwd=downloads,
    )
    assert "7 videos: 6 good, 1 bad" in said

    checkpoint = downloads / "kinetics.pth"
    _save_base_network(checkpoint, tool)
    options = [
        *THIN,
        f"load_from={checkpoint}",
        "train_cfg.max_epochs=2",
        "default_hooks.checkpoint.interval=1",
        "train_cfg.val_interval=2",
    ]
    videos = f"dataset.data_prefix.video={data}/videos"
    for part, listed in (("train", "train"), ("val", "val"), ("test", "val")):
        clean = "_clean" if part == "train" else ""
        path = f"{data}/ucf101_{listed}_split_1_videos{clean}.txt"
        loader = f"{part}_dataloader"
        options += [f"{loader}.{videos}", f"{loader}.dataset.ann_file={path}"]
        options += [f"{loader}.num_workers=1", f"{loader}.batch_size=2"]
    options[options.index("test_dataloader.batch_size=2")] = (
        "test_dataloader.batch_size=1"
    )

    said = run(
        *("bash", tools / "dist_train.sh", REPO / CONFIG, 2, "--seed", 0),
        *("--work-dir", downloads / "run", "--cfg-options", *options),
        cwd=downloads,
    )
    assert "kinetics.pth" in said and "Epoch(val) [2]" in said
    trained = downloads / "run" / "epoch_2.pth"
    weights = torch.load(trained, weights_only=False)["state_dict"]
    start = torch.load(checkpoint, weights_only=True)["state_dict"]
    name = "backbone.layer1.0.conv1.conv.weight"
    # Fine-tuned: near where it started, and not there any more.
    assert 0 < (weights[name] - start[name]).norm() < 0.1 * start[name].norm()
    assert any("poly_nl.alpha" in key and value != 0 for key, value in weights.items())

    said = run(
        *("bash", tools / "dist_test.sh", REPO / CONFIG, trained, 2),
        *("--work-dir", downloads / "run", "--dump", "scores.pkl"),
        *("--max-testing-views", 5, "--cfg-options", *options),
        cwd=downloads,
    )
    assert "acc/top1" in said and "acc/mean1" in said
    said = run(
        *(python, tools / "analysis_tools/confusion_matrix.py", "scores.pkl"),
        *("--labels", "data/ucf101_classes.txt", "--out", "confusion_matrix.png"),
        cwd=downloads,
    )
    assert (downloads / "confusion_matrix.png").read_bytes().startswith(b"\x89PNG")
    assert "4 samples" in said


def _save_base_network(path, tool):
    """Save a Kinetics-400 checkpoint of the config's network without plugins."""
    from mmaction.registry import MODELS
    from mmaction.utils import register_all_modules

    register_all_modules()
    cfg = Config.fromfile(REPO / BASE)
    cfg.merge_from_dict(dict(option.split("=") for option in THIN))
    for key in ("depth", "base_channels"):
        cfg.model.backbone[key] = int(cfg.model.backbone[key])
    cfg.model.cls_head.update(in_channels=64, num_classes=400)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    torch.save(dict(meta={}, state_dict=model.state_dict()), path)
