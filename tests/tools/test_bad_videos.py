# ruff: noqa: RUF005  (an option and its value stay together)
"""Training and testing on videos of which some are damaged in ten different ways."""

import json
import pickle
import re
import subprocess
from pathlib import Path

import programs
import pytest
from damaged_videos import damaged_copy, make_videos

TOOLS = Path(__file__).resolve().parents[2] / "tools"
DEADLINE = 120
COUNT = 200
EXTRA = """
train_dataloader.update(batch_size=20, num_workers=2)
model['backbone']['base_channels'] = 4
custom_hooks = [dict(type='BadVideosHook', max_share=0.2, interval=2)]
"""


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    return make_videos(tmp_path_factory.mktemp("whole") / "videos", COUNT)


@pytest.fixture(scope="module")
def damaged_tenth(videos, tmp_path_factory) -> tuple[Path, list[Path]]:
    # With a space, as users have.
    return damaged_copy(videos, tmp_path_factory.mktemp("a tenth") / "data", 2)


@pytest.fixture(scope="module")
def damaged_third(videos, tmp_path_factory) -> tuple[Path, list[Path]]:
    return damaged_copy(videos, tmp_path_factory.mktemp("a third") / "data", 6)


@pytest.fixture
def config(tiny_config, tmp_path):
    def write(data, extra="", epochs=2):
        path = tmp_path / f"bad{epochs}.py"
        return tiny_config(path, epochs, 4, data=data, extra=EXTRA + extra)

    return write


def train(tool, config, work_dir, *arguments) -> None:
    options = ["--no-validate", "--seed", "3", "--work-dir", str(work_dir)]
    tool("train").main([str(config), *options, *arguments])


def train_in_two_processes(config, work_dir) -> tuple[int, str]:
    command = ["bash", TOOLS / "dist_train.sh", config, "2"]
    ended = programs.run(
        command + ["--no-validate", "--seed", "3", "--work-dir", work_dir],
        timeout=DEADLINE,
        env={"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    return ended.returncode, ended.stderr


def log(work_dir: Path) -> str:
    return "".join(file.read_text() for file in sorted(work_dir.glob("*/*.log")))


def losses(work_dir: Path, epoch: int) -> list[float]:
    records = [
        json.loads(line)
        for file in sorted(work_dir.glob("*/vis_data/scalars.json"))
        for line in file.read_text().splitlines()
    ]
    return [x["loss"] for x in records if x.get("epoch") == epoch and "loss" in x]


def check_log(work_dir: Path, damaged: list[Path]) -> None:
    text = log(work_dir)
    for path in damaged:
        assert text.count(f"{path}: ") == 1, path
    numbers = re.findall(r"Bad video (\d+) \(", text)
    assert list(map(int, numbers)) == list(range(1, len(damaged) + 1))
    assert f"{len(damaged)} of {COUNT} training videos (10.00%) could not be" in text
    listed = (work_dir / "bad_videos_train.txt").read_text().splitlines()
    assert sorted(line.split("\t")[0] for line in listed) == sorted(map(str, damaged))


def too_many(errors: str) -> bool:
    said = [line for line in errors.splitlines() if line.startswith("Error: ")]
    # The data workers are ahead of the count.
    pattern = (
        r"Error: ([456]\d) of 200 training videos \([23]\d\.\d+%\) cannot be read,"
    )
    return len(said) == 1 and bool(re.match(pattern, said[0]))


@pytest.mark.slow
def test_training_survives_also_when_it_is_resumed(
    tool, config, damaged_tenth, tmp_path
):
    data, damaged = damaged_tenth
    train(tool, config(data), tmp_path / "whole")
    check_log(tmp_path / "whole", damaged)
    train(tool, config(data, epochs=1), tmp_path / "part")
    train(tool, config(data), tmp_path / "part", "--resume")
    check_log(tmp_path / "part", damaged)
    assert len(losses(tmp_path / "whole", 2)) == COUNT // 20
    assert losses(tmp_path / "part", 2) == losses(tmp_path / "whole", 2)


@pytest.mark.slow
def test_two_processes_survive(config, damaged_tenth, tmp_path):
    data, damaged = damaged_tenth
    status, errors = train_in_two_processes(config(data), tmp_path / "work")
    assert status == 0, errors
    check_log(tmp_path / "work", damaged)


def test_too_many_bad_videos_stop_training(
    tool, config, damaged_third, tmp_path, capsys
):
    with pytest.raises(SystemExit) as left:
        train(tool, config(damaged_third[0]), tmp_path / "work")
    errors = capsys.readouterr().err
    assert left.value.code == 2
    assert too_many(errors), errors
    assert not list((tmp_path / "work").glob("*.pth"))


@pytest.mark.slow
def test_too_many_bad_videos_stop_two_processes(config, damaged_third, tmp_path):
    work_dir = tmp_path / "work"
    status, errors = train_in_two_processes(config(damaged_third[0]), work_dir)
    assert status == 2
    assert too_many(errors) and "Traceback" not in errors, errors


def test_testing_leaves_no_sample_out(tool, config, videos, tmp_path, capsys):
    small = tmp_path / "small"
    (small / "videos").mkdir(parents=True)
    lines = (videos / "list.txt").read_text().splitlines()[:16]
    for name in (line.split()[0] for line in lines):
        (small / "videos" / name).write_bytes((videos / "videos" / name).read_bytes())
    (small / "list.txt").write_text("\n".join(lines))
    bad = ["003.mp4", "006.mp4", "007.mp4"]
    wrong = "custom_hooks[0]['in_testing'] = 'wrong'\nval_dataloader['num_workers'] = 1"
    path = config(small, "train_dataloader['batch_size'] = 4\n", epochs=1)
    train(tool, path, tmp_path / "work")
    checkpoint = str(tmp_path / "work" / "epoch_1.pth")
    work = ["--work-dir", str(tmp_path / "test"), "--dump", str(tmp_path / "d.pkl")]

    def scores():
        records = pickle.loads((tmp_path / "d.pkl").read_bytes())
        return [(int(x["gt_label"]), x["pred_score"].tolist()) for x in records]

    tool("test").main([str(path), checkpoint, *work])
    before = scores()
    for name in bad:
        (small / "videos" / name).write_bytes(b"damaged")
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        tool("test").main([str(path), checkpoint, *work])
    said = capsys.readouterr().err
    assert left.value.code == 2
    assert f"video {small / 'videos' / '003.mp4'} cannot be read (nor can 2 mo" in said

    metrics = tmp_path / "m.json"
    path = config(small, wrong)
    tool("test").main([str(path), checkpoint, *work, "--metrics", str(metrics)])
    right = 0
    for index, (old, (label, pair)) in enumerate(zip(before, scores(), strict=True)):
        if f"{index:03d}.mp4" in bad:
            assert (label, pair[label]) == (old[0], 0)
        else:
            assert (label, pair) == (old[0], pytest.approx(old[1]))
            right += pair[label] > pair[1 - label]
    assert json.loads(metrics.read_text())["acc/top1"] == pytest.approx(right / 16)
    assert "3 of 16 test videos (18.75%) could not be read and count as wrong" in log(
        tmp_path / "test"
    )
