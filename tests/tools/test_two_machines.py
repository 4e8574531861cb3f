"""Two launches that meet as two machines do, each with one CPU process."""

import socket
import subprocess
from pathlib import Path

import programs
import pytest

from polynl_mm.analysis.accuracy.runs import find_scalars, read_scalars

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.mark.slow
def test_two_machines_train_one_model(tiny_config, tmp_path):
    config = tiny_config(tmp_path / "tiny.py")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = str(server.getsockname()[1])
    machines = []
    for rank in range(2):
        meet = {"NODE_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "PORT": port}
        machines.append(
            programs.start(
                [
                    *("bash", TOOLS / "dist_train.sh", config, "1"),
                    *("--work-dir", tmp_path / f"machine{rank}"),
                ],
                env={"NNODES": "2", "OMP_NUM_THREADS": "1", **meet},
                cwd=tmp_path,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
        )
    for machine in machines:
        _, errors = programs.finish(machine, timeout=120)
        assert machine.returncode == 0, errors[-3000:]
    steps = [
        r for r in read_scalars(find_scalars(tmp_path / "machine0")) if "loss" in r
    ]
    # 12 clips, 2 in a batch: one machine alone would take 6 steps.
    assert len(steps) == 3
    # The first process of the first machine writes for all.
    assert (tmp_path / "machine0" / "epoch_1.pth").is_file()
    assert not (tmp_path / "machine1" / "epoch_1.pth").exists()
