"""What the launcher says when its processes cannot meet, and what it leaves behind."""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch.distributed


def test_busy_port_is_said_in_one_sentence(tool, monkeypatch, capsys):
    launch = tool("launch")
    with socket.create_server(("0.0.0.0", 0)) as busy:
        port = busy.getsockname()[1]
        monkeypatch.setattr(
            launch.run,
            "main",
            lambda _: torch.distributed.TCPStore("127.0.0.1", port, 1, True),
        )
        assert launch.main() == 2
    said = capsys.readouterr().err
    assert said.startswith(f"Error: the port {port} is in use") and "PORT" in said
    assert said.count("\n") == 1


def test_other_failures_to_meet_are_said_too(tool, monkeypatch, capsys):
    launch = tool("launch")

    def fail(_):
        raise torch.distributed.DistNetworkError("timed out\nmuch more")

    monkeypatch.setattr(launch.run, "main", fail)
    assert launch.main() == 2
    said = capsys.readouterr().err
    assert "check MASTER_ADDR, PORT and NODE_RANK" in said and "(timed out)" in said
    assert said.count("\n") == 1


def test_no_folder_is_left_behind(tool, monkeypatch, tmp_path):
    launch = tool("launch")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    dead = tmp_path / f"{launch.LOGS}{process.pid}_x"
    alive, strange = (tmp_path / f"{launch.LOGS}{x}" for x in (f"{os.getpid()}_x", "y"))
    for folder in (dead, alive, strange):
        folder.mkdir()
        (folder / "error.json").touch()
    seen = []

    def end(arguments):
        seen.extend(tmp_path.iterdir())
        assert Path(arguments[arguments.index("--log-dir") + 1]) in seen
        raise launch.SignalException("ended", launch.signal.SIGTERM)

    monkeypatch.setattr(launch.run, "main", end)
    assert launch.main() == 128 + launch.signal.SIGTERM
    assert dead not in seen and len(seen) == 3
    assert sorted(tmp_path.iterdir()) == sorted([alive, strange])


@pytest.mark.parametrize(
    "variable, value",
    [
        ("PORT", "0"),
        ("PORT", "-1"),
        ("PORT", "70000"),
        ("PORT", "99999999999999999999"),
        ("NNODES", "0"),
        ("NODE_RANK", "two"),
        ("OMP_NUM_THREADS", "0"),
        ("GPUS", "0"),
        ("GPUS", "-2"),
        ("GPUS", "1.5"),
        ("GPUS", "11111111111111111111"),
    ],
)
def test_bad_numbers_are_said_before_anything_starts(variable, value):
    script = Path(__file__).resolve().parents[2] / "tools" / "dist_train.sh"
    gpus = value if variable == "GPUS" else "2"
    done = subprocess.run(
        ["bash", script, "config.py", gpus],
        env=dict(os.environ, **{variable: value}),
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 2
    assert f"{variable} must be a number" in done.stderr and value in done.stderr
    assert done.stderr.count("\n") == 1
