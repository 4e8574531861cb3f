"""What the stack says about itself does not reach the users of the tools."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.utils import digit_version

from polynl_mm.stack.quiet_stack import is_for_users

REPO = Path(__file__).resolve().parents[2]


def record(text, *args):
    return logging.LogRecord("a", logging.INFO, "", 0, text, args, None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without GPUs")
def test_processes_of_a_cpu_run_are_not_called_gpus():
    environment = record("Distributed training: %s\n    GPU number: 2\n---", True)
    assert is_for_users(environment)
    text = environment.getMessage()
    assert text == "Distributed training: True\n    Processes (CPU): 2\n---"


def test_only_what_concerns_users_is_logged():
    assert not is_for_users(record('"FileClient" will be deprecated in future.'))
    assert is_for_users(record("Epoch(train) [1][1/6] %s", "loss: 0.7"))


@pytest.mark.xfail(
    digit_version(torch.__version__) < digit_version("2.6"),
    reason="torch 2.5 warns of itself while MMEngine is imported",
    strict=False,
)
def test_mistake_in_an_inherited_config_is_the_only_line(tmp_path):
    """The first lines that a newcomer meets, with all that MMAction2 imports."""
    (tmp_path / "config.py").write_text(
        "_base_ = 'mmaction::recognition/slowonly/"
        "slowonly_r50_8xb16-4x16x1-256e_kinetics400-rgb.py'\n"
        "custom_imports = dict(imports=['polynl_mm', 'mmaction.models'],\n"
        "                      allow_failed_imports=False)\n"
    )
    done = subprocess.run(
        [sys.executable, str(REPO / "tools" / "train.py"), "config.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("Error: The annotation file data/kinetics400/")
    assert done.stderr.count("\n") == 1
