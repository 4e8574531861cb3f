import json
import os
import signal
import subprocess
import sys

from mmengine.config import Config
from mmengine.fileio import LocalBackend, get_file_backend, register_backend
from mmengine.runner import save_checkpoint

from polynl_mm.stack.atomic_writes import AtomicLocalBackend, install_atomic_writes

KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
import torch, polynl_mm
from mmengine.runner import save_checkpoint

def write_half(self, data):
    with open(self, 'wb') as file:
        file.write(data[:len(data) // 2])
        file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

Path.write_bytes = write_half
save_checkpoint({'state_dict': {'a': torch.zeros(1000)}}, sys.argv[1])
"""


def test_checkpoint_is_whole_or_old_when_killed_while_writing(tmp_path):
    target = tmp_path / "epoch_1.pth"
    target.write_bytes(b"the old one")
    done = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(target)])
    assert done.returncode == -signal.SIGKILL
    assert target.read_bytes() == b"the old one"
    assert not [p for p in tmp_path.glob("*.pth") if p != target and p.name[0] != "."]


def test_mmengine_saves_through_it(tmp_path):
    assert type(get_file_backend("x.pth")) is AtomicLocalBackend
    save_checkpoint({"a": 1}, str(tmp_path / "new" / "a.pth"))
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.pth"]


def test_another_local_backend_is_left_alone():
    class Own(LocalBackend):
        pass

    try:
        register_backend("local", Own, force=True, prefixes="")
        install_atomic_writes()
        assert type(get_file_backend("x.pth")) is Own
    finally:
        register_backend("local", LocalBackend, force=True, prefixes="")
        install_atomic_writes()
    assert type(get_file_backend("x.pth")) is AtomicLocalBackend


def test_config_is_written_as_before(tmp_path):
    config = Config({"a": 1})
    config.dump(tmp_path / "a.py")
    config.dump(str(tmp_path / "a.json"))
    assert (tmp_path / "a.py").read_text() == config.pretty_text == config.dump()
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
    assert sorted(os.listdir(tmp_path)) == ["a.json", "a.py"]
    before = Config.dump
    install_atomic_writes()
    assert Config.dump is before
