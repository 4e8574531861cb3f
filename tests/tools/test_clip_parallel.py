"""Two processes that share each clip, through dist_train.sh: as one, and safe."""

import json
import subprocess
from pathlib import Path

import programs
import pytest

from polynl_mm.analysis.accuracy.dumped_results import read_results

TOOLS = Path(__file__).resolve().parents[2] / "tools"
DEADLINE = 120
PLAIN = """
pipeline[3]['flip_ratio'] = 0  # each run draws for itself
pipeline[1]['frame_interval'] = 2  # all eight frames
model['cls_head']['dropout_ratio'] = 0
model['backbone'].update(type='WithPlugins', of='ResNet3dSlowOnly',
                         plugins=[dict(cfg=dict(type='PolyNL3d'))])
train_dataloader['batch_size'] = 4
val_dataloader['batch_size'] = 3
"""
# A file that is damaged in some of its frames only: no rank sees all of them.
DAMAGED = """
import numpy as np
from mmaction.datasets.transforms import loading
from mmaction.registry import TRANSFORMS

@TRANSFORMS.register_module(name='DecordDecode', force=True)
class DecordDecode(loading.DecordDecode):
    def transform(self, results):
        last = int(np.max(results['frame_inds'])) >= 4
        first = int(np.min(results['frame_inds'])) < 4
        name = results['filename']
        if (name.endswith('/3.mp4') and last) or (name.endswith('/8.mp4') and first):
            raise RuntimeError('damaged here')
        return super().transform(results)
"""
DAMAGED_CONFIG = """
custom_imports['imports'].append('damaged_half')
custom_hooks = [dict(type='BadVideosHook', max_share=0.5, interval=1)]
train_dataloader.update(num_workers=1)
"""


def launch(*command: str, folder: Path) -> str:
    ended = programs.run(
        ["bash", *command],
        timeout=DEADLINE,
        env={"OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


def train(config: Path, work_dir: Path, *arguments: str, processes=2) -> str:
    """Train, sharing each clip over all processes; return what it wrote."""
    if processes > 1:
        arguments = ("--clip-parallel", str(processes), *arguments)
    return launch(
        str(TOOLS / "dist_train.sh"),
        *(str(config), str(processes), "--seed", "7", "--work-dir", str(work_dir)),
        *arguments,
        folder=config.parent,
    )


def test(config: Path, checkpoint: Path, *arguments: str) -> str:
    return launch(
        str(TOOLS / "dist_test.sh"),
        *(str(config), str(checkpoint), "2", "--work-dir", str(config.parent / "t")),
        *arguments,
        folder=config.parent,
    )


test.__test__ = False


def records(work_dir: Path, key: str, epoch: int | None = None) -> list[float]:
    found = [
        json.loads(line)
        for file in sorted(work_dir.glob("*/vis_data/scalars.json"))
        for line in file.read_text().splitlines()
    ]
    return [r[key] for r in found if key in r and epoch in (None, r.get("epoch"))]


@pytest.mark.slow
def test_losses_and_accuracy_are_those_of_one_process(tiny_config, tmp_path):
    config = tiny_config(tmp_path / "plain.py", epochs=2, extra=PLAIN)
    said = train(config, tmp_path / "shared")
    assert "Each clip is shared over 2 ranks: 1 groups." in said
    train(config, tmp_path / "alone", processes=1)
    for epoch in (1, 2):
        shared = records(tmp_path / "shared", "loss", epoch)
        alone = records(tmp_path / "alone", "loss", epoch)
        assert len(alone) == 3
        assert shared == pytest.approx(alone, abs=1e-4)
    accuracies = records(tmp_path / "shared", "acc/top1")
    assert accuracies == records(tmp_path / "alone", "acc/top1")
    # Three clips of each video, whose scores are averaged.
    scores = {}
    for ranks in ("2", "1"):
        test(
            config,
            tmp_path / "shared" / "epoch_2.pth",
            *("--clip-parallel", ranks, "--dump", str(tmp_path / f"{ranks}.pkl")),
            *("--cfg-options", "test_dataloader.dataset.pipeline.1.num_clips=3"),
        )
        dumped = read_results(tmp_path / f"{ranks}.pkl")
        assert len(dumped.scores) == 12
        scores[ranks] = dumped.scores
    assert scores["2"] == pytest.approx(scores["1"], abs=1e-5)


@pytest.mark.slow
def test_file_damaged_in_the_frames_of_one_rank_is_replaced_in_all(
    tiny_config, tmp_path
):
    (tmp_path / "damaged_half.py").write_text(DAMAGED)
    config = tiny_config(tmp_path / "half.py", 2, extra=PLAIN + DAMAGED_CONFIG)
    said = train(config, tmp_path / "shared", "--no-validate")
    assert said.count("could not be read and were replaced") >= 1
    train(config, tmp_path / "alone", "--no-validate", processes=1)
    for run in ("shared", "alone"):
        listed = (tmp_path / run / "bad_videos_train.txt").read_text().splitlines()
        names = {Path(line.split("\t")[0]).name for line in listed}
        assert names == {"3.mp4", "8.mp4"}
    losses = records(tmp_path / "shared", "loss")
    assert len(losses) == 6
    assert losses == pytest.approx(records(tmp_path / "alone", "loss"), abs=1e-4)


@pytest.mark.parametrize(
    "ranks, said",
    [
        ("2", "1 process cannot share clips over 2 ranks each; start 2"),
        ("0", "--clip-parallel is a whole number of ranks from 1, not 0"),
    ],
)
def test_numbers_of_ranks_that_do_not_fit(
    tool, tiny_config, tmp_path, monkeypatch, capsys, ranks, said
):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    config = tiny_config(tmp_path / "tiny.py")
    with pytest.raises(SystemExit) as left:
        tool("train").main(
            [str(config), "--work-dir", str(tmp_path / "w"), "--clip-parallel", ranks]
        )
    assert left.value.code == 2
    assert f"Error: {said}" in capsys.readouterr().err


@pytest.mark.slow
def test_length_of_clips_that_does_not_fit_is_one_sentence(tiny_config, tmp_path):
    config = tiny_config(tmp_path / "tiny.py")
    ended = programs.run(
        [
            *("bash", TOOLS / "dist_train.sh", config, "2"),
            *("--work-dir", tmp_path / "work", "--clip-parallel", "2"),
            *("--cfg-options", "train_dataloader.dataset.pipeline.1.clip_len=5"),
        ],
        timeout=DEADLINE,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    assert ended.returncode == 2, ended.stderr
    lines = [x for x in ended.stderr.splitlines() if x.startswith("Error: ")]
    assert lines == [
        "Error: A clip of 5 frames cannot be shared over 2 ranks; take a multiple of "
        "2, such as 4 or 6."
    ]
    assert "Traceback" not in ended.stderr
