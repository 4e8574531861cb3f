"""The data tools as a user runs them, one after the other, on one small dataset."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TOOLS, write_video
from mmengine.config import Config

from polynl_mm.datasets.annotations import check_datasets
from polynl_mm.recognizers.command_line import CfgOptions

DATA = TOOLS / "data"


@pytest.fixture
def downloads(tmp_path):
    """Six clips of two classes whose folders have a space, one of them damaged."""
    rows = ["label,youtube_id,time_start,time_end,split"]
    for index in range(6):
        name = ("playing guitar", '"arm, wrestling"')[index % 2]
        path = tmp_path / "downloads" / name.strip('"') / f"-id_{index}_000001_000011"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path.with_suffix(".mp4"), frames=8, size=80, seed=index)
        rows.append(f"{name},-id_{index},1,11,train")
    damaged = tmp_path / "downloads" / "playing guitar" / "-id_2_000001_000011.mp4"
    damaged.write_bytes(damaged.read_bytes()[:400])
    (tmp_path / "train.csv").write_text("\r\n".join(rows) + "\r\n")
    return tmp_path / "downloads"


def test_from_downloads_to_a_list_that_loads(downloads, tmp_path, tool, capsys):
    pytest.importorskip("av", reason="needs PyAV: pip install av")
    small, listed = tmp_path / "videos", tmp_path / "list.txt"
    with pytest.raises(SystemExit) as stop:
        tool("data/resize_videos").main(
            [str(downloads), str(small), "--short-side", "64", "-j", "2"]
        )
    assert stop.value.code == 1  # the damaged one
    tool("data/kinetics/build_annotations").main(
        ["--csv", f"{tmp_path}/train.csv", "--videos", str(small), f"--out={listed}"]
    )
    said = capsys.readouterr().out
    assert "5 of 6 clips" in said and "Missing: 1 clips" in said
    (small / "arm, wrestling" / "-id_5_000001_000011.mp4").write_bytes(b"")
    tool("data/check_videos").main([str(listed), "--videos", str(small), "-j", "2"])
    assert "5 videos: 4 good, 1 bad (1 unreadable)" in capsys.readouterr().out

    from mmaction.datasets import VideoDataset
    from mmaction.utils import register_all_modules

    register_all_modules()
    dataset = {
        "type": "VideoDataset",
        "ann_file": str(tmp_path / "list_clean.txt"),
        "data_prefix": {"video": str(small)},
        "pipeline": [{"type": "DecordInit"}],
    }
    cfg = Config({"train_dataloader": {"dataset": dataset}})
    cfg.merge_from_dict(_options("train_dataloader.dataset.delimiter=;"))
    check_datasets(cfg, ("train",))
    cfg.train_dataloader.dataset.pop("type")
    loaded = VideoDataset(**cfg.train_dataloader.dataset)
    assert [loaded[i]["total_frames"] for i in range(len(loaded))] == [8] * 4
    labels = {Path(x["filename"]).stem[:5]: x["label"] for x in loaded.load_data_list()}
    assert labels == {"-id_0": 1, "-id_1": 0, "-id_3": 0, "-id_4": 1}


def _options(*given):
    """Parse ``--cfg-options`` as the tools do."""
    import argparse

    parser = argparse.ArgumentParser()
    parser.add_argument("--cfg-options", nargs="+", action=CfgOptions)
    return parser.parse_args(["--cfg-options", *given]).cfg_options


def test_ucf101_from_any_folder(tmp_path):
    splits = tmp_path / "splits"
    splits.mkdir()
    (splits / "classInd.txt").write_bytes(b"1 Archery\r\n")
    for part in ("train", "test"):
        lines = f"Archery/{part}.avi{' 1' if part == 'train' else ''}\r\n"
        (splits / f"{part}list01.txt").write_text(lines)
    script = DATA / "ucf101" / "build_annotations.py"
    arguments = ["--splits", "splits", "--out", ".", "--split", "1"]
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    listed = tmp_path / "ucf101_val_split_1_videos.txt"
    assert listed.read_text() == "Archery/test.avi 0\n"
    assert "ucf101_train_split_1_videos.txt: 1 videos" in done.stdout
