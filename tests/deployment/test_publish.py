"""Published checkpoints: weights and meta, under a name with their hash."""

import datetime
import hashlib
import os

import pytest
import torch

from polynl_mm.deployment.publish import publish
from polynl_mm.stack.safe_checkpoints import CheckpointError
from polynl_mm.user_errors import UserError

DAY = datetime.date(2024, 3, 5)


@pytest.fixture
def trained(tmp_path):
    """A checkpoint as MMEngine stores one, with an EMA."""
    file = tmp_path / "epoch_3.pth"
    whole = torch.arange(1000.0)
    content = dict(
        meta=dict(epoch=3, cfg="data_root = 'here'", hook_msgs=dict(last_ckpt="here")),
        state_dict={
            "a.weight": whole[:3],
            "data_preprocessor.mean": torch.zeros(3),
        },
        ema_state_dict={"module.a.weight": torch.zeros(3), "steps": torch.tensor(5)},
        optimizer=dict(state={0: dict(momentum_buffer=torch.zeros(3))}),
        param_schedulers=[dict(last_step=3)],
        message_hub=dict(runtime_info={}),
    )
    torch.save(content, file)
    return str(file)


def test_weights_and_meta_are_left(trained, tmp_path):
    written, left_out = publish(trained, str(tmp_path / "out" / "model.pth"), date=DAY)
    digest = hashlib.sha256(written.read_bytes()).hexdigest()
    assert written.name == f"model_20240305-{digest[:8]}.pth"
    assert os.listdir(written.parent) == [written.name]
    loaded = torch.load(written, weights_only=True)
    assert set(loaded) == {"meta", "state_dict"}
    assert loaded["meta"] == dict(epoch=3, cfg="data_root = 'here'")
    assert list(loaded["state_dict"]) == ["a.weight"]
    assert loaded["state_dict"]["a.weight"].tolist() == [0, 1, 2]
    # A view is not stored with all of what it looks into.
    assert loaded["state_dict"]["a.weight"].untyped_storage().nbytes() == 12
    assert left_out == [
        "ema_state_dict",
        "message_hub",
        "optimizer",
        "param_schedulers",
    ]


def test_no_other_file_is_touched(trained, tmp_path):
    names = ["model.pth", "model_unnamed.pth"]
    for name in names:
        (tmp_path / name).write_text("kept")
    publish(trained, str(tmp_path / "model.pth"), date=DAY)
    assert [(tmp_path / name).read_text() for name in names] == ["kept", "kept"]


def test_hash_is_of_the_content_alone(trained, tmp_path):
    one, _ = publish(trained, str(tmp_path / "a.pth"), date=DAY)
    two, _ = publish(trained, str(tmp_path / "other.pth"), date=DAY)
    assert one.stem.rpartition("-")[2] == two.stem.rpartition("-")[2]
    bare, _ = publish(trained, str(tmp_path / "a.pth"), with_config=False, date=DAY)
    assert bare != one and "cfg" not in torch.load(bare, weights_only=True)["meta"]


def test_bare_state_dict(tmp_path):
    torch.save({"module.a.weight": torch.ones(2)}, tmp_path / "bare.pth")
    written, left_out = publish(str(tmp_path / "bare.pth"), str(tmp_path / "m.pth"))
    assert left_out == []
    assert list(torch.load(written, weights_only=True)["state_dict"]) == ["a.weight"]


class Harmful:
    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def test_unfit_files(trained, tmp_path):
    marker, harmful = tmp_path / "marker", tmp_path / "harmful.pth"
    torch.save({"state_dict": {"a": torch.ones(1)}, "x": Harmful(marker)}, harmful)
    target = str(tmp_path / "out" / "m.pth")
    with pytest.raises(CheckpointError, match="refused"):
        publish(str(harmful), target)
    assert not marker.exists()
    torch.save({"state_dict": {"a": 3}}, harmful)
    with pytest.raises(CheckpointError, match="'a' is a int, not a tensor"):
        publish(str(harmful), target)
    torch.save([1], harmful)
    with pytest.raises(CheckpointError, match="no weights"):
        publish(str(harmful), target)
    with pytest.raises(UserError, match=r"NAME\.pth, not model\.bin"):
        publish(trained, "model.bin")
    with pytest.raises(UserError, match="is a folder"):
        folder = tmp_path / "folder.pth"
        folder.mkdir()
        publish(trained, str(folder))
    assert not (tmp_path / "out").exists()
