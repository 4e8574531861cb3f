import json

import pytest
from mmengine_scalars import SCALARS
from PIL import Image

from polynl_mm.analysis.accuracy.training_curves import (
    TrainingLog,
    draw_curves,
    find_keys,
    read_training,
    seconds_by_epoch,
)
from polynl_mm.user_errors import UserError


def write_scalars(run, records, time="20260101_000000"):
    folder = run / time / "vis_data"
    folder.mkdir(parents=True)
    lines = [json.dumps(record) for record in records]
    (folder / "scalars.json").write_text("\n".join(lines) + "\n")
    return run


def test_curves_over_epochs_and_iterations(tmp_path):
    log = read_training(write_scalars(tmp_path / "run", SCALARS))
    assert log.curve("loss", "epoch") == ([0.4, 1.0, 2.0], [0.7, 0.6, 0.5])
    assert log.curve("loss", "iter") == ([2, 5, 10], [0.7, 0.6, 0.5])
    assert log.curve("acc/top1", "epoch") == ([1, 2], [0.55, 0.95])
    assert log.curve("acc/top1", "iter") == ([5, 10], [0.55, 0.95])
    assert seconds_by_epoch(log) == {1: 0.75, 2: 2.0}
    direct = read_training(tmp_path / "run/20260101_000000/vis_data/scalars.json")
    assert direct.records == log.records


def test_a_resumed_training_is_one_curve(tmp_path):
    run = write_scalars(tmp_path / "run", SCALARS)
    # Cut off in the middle of epoch 3, and resumed after epoch 2.
    with open(run / "20260101_000000/vis_data/scalars.json", "a") as file:
        file.write(json.dumps(dict(loss=9.0, epoch=3, iter=12, step=12)) + "\n")
        file.write('{"loss": 9.0, "ep')
    resumed = [
        dict(loss=0.4, epoch=3, iter=12, step=12),
        dict(loss=0.3, epoch=3, iter=15, step=15),
        {"acc/top1": 0.97, "step": 3},
    ]
    log = read_training(write_scalars(run, resumed, time="20260102_000000"))
    assert log.curve("loss", "iter") == (
        [2, 5, 10, 12, 15],
        [0.7, 0.6, 0.5, 0.4, 0.3],
    )
    assert log.curve("acc/top1", "epoch") == ([1, 2, 3], [0.55, 0.95, 0.97])


def test_trainings_without_epochs(tmp_path):
    records = [dict(loss=1.0, step=10), {"acc/top1": 0.5, "step": 10}]
    log = TrainingLog("iterations", records)
    assert log.curve("acc/top1", "iter") == ([10], [0.5])
    with pytest.raises(UserError, match="give --over iter"):
        draw_curves([log], ["loss"], tmp_path / "a.png")


def test_keys():
    log = TrainingLog("a", [{**SCALARS[0], "lr": 0.1}, *SCALARS[1:]])
    assert find_keys([log], None) == ["loss", "acc/top1", "lr"]
    with pytest.raises(UserError, match="did you mean 'acc/top1'"):
        find_keys([log], ["acc/top"])
    with pytest.raises(UserError, match="recorded are loss, time, "):
        find_keys([log], ["qqq"])


def test_picture_of_several_trainings(tmp_path):
    logs = [TrainingLog(str(number), SCALARS) for number in range(12)]
    draw_curves(logs, ["loss", "acc/top1"], tmp_path / "a.png", title="Twelve")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size[0] > 1.5 * picture.size[1] > 600
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 50


def test_unfit_runs(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_training(tmp_path / "no")
    with pytest.raises(UserError, match=r"has no .*scalars\.json"):
        read_training(tmp_path)
    (tmp_path / "a.json").write_text("not json\n")
    with pytest.raises(UserError, match="records no training"):
        read_training(tmp_path / "a.json")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(UserError, match="is not a text file"):
        read_training(tmp_path / "a.png")
