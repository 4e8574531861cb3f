import functools
import http.server
import io
import os
import threading

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader, load_checkpoint
from torch.utils._pytree import tree_leaves, tree_map

from polynl_mm.stack import safe_checkpoints as checkpoints
from polynl_mm.stack.safe_checkpoints import (
    CheckpointError,
    load_safely,
    trust_checkpoints,
)


class Harmful:
    """Its pickle makes a folder when it is loaded."""

    def __init__(self, marker, call=os.mkdir):
        self.marker, self.call = str(marker), call

    def __reduce__(self):
        return self.call, (self.marker,)


@pytest.fixture
def harmful(tmp_path):
    """A harmful checkpoint and the marker that it would leave."""
    file, marker = tmp_path / "harmful.pth", tmp_path / "marker"
    content = {"state_dict": torch.nn.Linear(2, 2).state_dict()}
    torch.save({**content, "meta": Harmful(marker)}, file)
    return file, marker


def save_and_load(content):
    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    return load_safely(file, name="memory")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_harmful_pickle_is_refused_and_not_run(tmp_path, zipped):
    file, marker = tmp_path / "harmful.pth", tmp_path / "marker"
    torch.save({"x": Harmful(marker)}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"harmful\.pth.*mkdir.*--trust-checkpo"):
        load_safely(file)
    assert not marker.exists()


def test_every_entry_of_mmengine_refuses(harmful):
    file, marker = harmful
    with pytest.raises(CheckpointError):
        load_checkpoint(torch.nn.Linear(2, 2), str(file))
    with pytest.raises(CheckpointError):
        CheckpointLoader.load_checkpoint(str(file))
    for prefix, loader in CheckpointLoader._schemes.items():
        assert loader.__module__ == checkpoints.__name__, prefix
    assert not marker.exists()


def test_download_is_refused_too(harmful, tmp_path, monkeypatch):
    file, marker = harmful
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    handler = functools.partial(Quiet, directory=str(file.parent))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    try:
        with pytest.raises(CheckpointError, match="mkdir"):
            CheckpointLoader.load_checkpoint(f"{address}/harmful.pth")
        with pytest.raises(CheckpointError, match="cannot be downloaded"):
            CheckpointLoader.load_checkpoint(f"{address}/absent.pth")
        torch.save({"state_dict": {"a": torch.ones(2)}}, file.parent / "good.pth")
        good = CheckpointLoader.load_checkpoint(f"{address}/good.pth")
        assert good["state_dict"]["a"].tolist() == [1, 1]
    finally:
        server.shutdown()
    assert not marker.exists()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def test_trusting_is_the_way_round(harmful, capfd):
    file, marker = harmful
    with pytest.raises(CheckpointError):
        load_safely(file)
    assert not marker.exists()
    trust_checkpoints()
    load_safely(file)
    assert marker.exists()


def test_mmengines_own_records_load():
    loaded = save_and_load(
        {
            "history": HistoryBuffer([1.0, 2.0], [1, 1]),
            "scalar": np.float64(0.5),
            "flag": np.bool_(True),
            "array": np.arange(6.0).reshape(2, 3),
        }
    )
    assert loaded["history"].mean() == 1.5
    assert type(loaded["scalar"]) is np.float64 and loaded["scalar"] == 0.5
    assert bool(loaded["flag"])
    assert np.array_equal(loaded["array"], np.arange(6.0).reshape(2, 3))


def test_scheduler_with_a_function_in_its_state_loads():
    from mmengine.optim import OneCycleLR

    optimizer = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=0.1)
    scheduler = OneCycleLR(optimizer, eta_max=0.1, total_steps=5)
    loaded = save_and_load(scheduler.state_dict())
    assert loaded["anneal_func"] is OneCycleLR._annealing_cos


@pytest.mark.parametrize(
    "array",
    [np.array([object()]), np.zeros(2, "i4,f4"), np.array(["text"])],
    ids=["object", "structured", "text"],
)
def test_other_numpy_arrays_are_refused(array):
    with pytest.raises(CheckpointError, match="numpy dtype"):
        save_and_load({"x": array})


def test_getattr_reaches_only_what_mmengine_stores():
    class Reach:
        def __reduce__(self):
            return getattr, (HistoryBuffer, "__init__")

    with pytest.raises(CheckpointError, match="getattr"):
        save_and_load({"x": Reach()})


def test_records_on_which_mmengine_would_act_are_dropped():
    loaded = save_and_load(
        {
            "meta": {"config": "import os", "cfg": "model = dict()", "epoch": 2},
            "message_hub": {
                "runtime_info": {
                    "keep_ckpt_ids": ["/../../precious"],
                    "best_ckpt": "/",
                    "best_score": 1.0,
                }
            },
        }
    )
    assert loaded["meta"] == {"cfg": "model = dict()", "epoch": 2}
    assert loaded["message_hub"]["runtime_info"] == {"best_score": 1.0}


def test_ordinary_records_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    info = {"keep_ckpt_ids": [1, 2], "best_ckpt": str(tmp_path / "best_epoch_2.pth")}
    info |= {"best_ckpt_acc": "./best_acc.pth", "best_ckpt_f1": None}
    content = {"message_hub": {"runtime_info": info}}
    torch.save(content, "epoch_2.pth")
    assert load_safely("epoch_2.pth") == content
    assert load_safely(tmp_path / "epoch_2.pth") == content


@pytest.mark.parametrize(
    "best", ["/work/best_epoch_2.pth", "other/best.pth", "sub/../../best.pth", "a.txt"]
)
def test_best_checkpoint_of_another_folder_is_dropped(tmp_path, monkeypatch, best):
    monkeypatch.chdir(tmp_path)
    info = {"best_ckpt": best, "best_score": 1.0}
    torch.save({"message_hub": {"runtime_info": info}}, "epoch_2.pth")
    loaded = load_safely("epoch_2.pth")
    assert loaded["message_hub"]["runtime_info"] == {"best_score": 1.0}


def test_files_that_are_no_checkpoints_say_so(tmp_path):
    good = tmp_path / "epoch_10.pth"
    torch.save({"state_dict": {"a": torch.zeros(1000)}}, good)
    cases = {
        "text.pth": (b"hello, world", "is not a checkpoint"),
        "empty.pth": (b"", "is an empty file"),
        "half.pth": (good.read_bytes()[:2000], "truncated or damaged"),
        "pickle.pth": (b"\x80\x02}q", "truncated or damaged"),
    }
    for name, (content, sentence) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=f"{name} .*{sentence}"):
            load_safely(tmp_path / name)
    with pytest.raises(CheckpointError, match=r"does not exist.*'epoch_10\.pth'"):
        load_safely(tmp_path / "epoch_11.pth")
    with pytest.raises(CheckpointError, match="is a folder"):
        load_safely(tmp_path)
    script = tmp_path / "script.pth"
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(script))
    with pytest.raises(CheckpointError, match="TorchScript"):
        load_safely(script)


def test_no_flipped_bit_is_loaded_as_another_weight(tmp_path):
    """Each flip is refused, or met where nothing is kept (as in padding)."""
    content = {
        "state_dict": {f"layer{i}.weight": torch.randn(3, 5) for i in range(4)},
        "optimizer": {"state": {0: {"momentum_buffer": torch.randn(7)}}},
        "meta": {"epoch": 3, "iter": 12},
    }
    torch.save(content, tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    file = tmp_path / "flipped.pth"
    random = np.random.default_rng(0)
    refused = 0
    for bit in random.choice(8 * len(whole), 400, replace=False):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << (bit % 8)
        file.write_bytes(flipped)
        try:
            loaded = load_safely(file)
        except CheckpointError:
            refused += 1
            continue
        same = tree_map(torch.equal, *map(_as_tensors, (loaded, content)))
        assert all(tree_leaves(same)), f"bit {bit}"
    assert refused > 100


def _as_tensors(content):
    return tree_map(torch.as_tensor, content)


def test_zeroed_sector_is_named(tmp_path):
    torch.save({"state_dict": {"w": torch.randn(4000)}}, tmp_path / "a.pth")
    content = bytearray((tmp_path / "a.pth").read_bytes())
    content[4096:4608] = bytes(512)
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"damaged: its record a?.*data/0 does"):
        load_safely(tmp_path / "a.pth")


def test_files_without_checksums_are_named(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(checkpoints, "print_log", lambda text, **_: said.append(text))
    old = tmp_path / "old.pth"
    torch.save({"w": torch.ones(2)}, old, _use_new_zipfile_serialization=False)
    load_safely(old)
    assert "old.pth is in torch's old format, which has no checksums" in said[0]


def _nested(depth):
    value = torch.ones(1)
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (torch.ones(3).to_sparse(), "layout torch.sparse_coo"),
        (torch.empty(3, device="meta"), "without numbers, of the meta device"),
        (torch.ones(1).expand(10**9), "of 1000000000 numbers of which it stores fewer"),
        (torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "quantised"),
    ],
    ids=["sparse", "meta", "expanded", "quantised"],
)
@pytest.mark.parametrize("place", ["state_dict", "optimizer"])
def test_tensors_that_are_no_plain_numbers(tmp_path, value, sentence, place):
    torch.save({place: {"w": torch.ones(2), "odd": value}}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError) as error:
        load_safely(tmp_path / "a.pth")
    said = str(error.value)
    assert "a.pth" in said and (sentence in said or "can be read safely" in said)


def test_views_of_one_storage_are_plain(tmp_path):
    whole = torch.arange(12.0)
    content = {"state_dict": {"a": whole[2:7], "b": whole.view(3, 4).T, "c": whole[:0]}}
    torch.save(content, tmp_path / "a.pth")
    loaded = load_safely(tmp_path / "a.pth")["state_dict"]
    assert torch.equal(loaded["b"], content["state_dict"]["b"])
