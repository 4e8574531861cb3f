"""FSDP on two CPU processes: trains as DDP does, resumes, and can be evaluated."""

import json
import subprocess
from pathlib import Path

import programs
import pytest
import torch

from polynl_mm.analysis.accuracy.runs import accuracy_curve, find_scalars, read_scalars

TOOLS = Path(__file__).resolve().parents[2] / "tools"
COUNTING = """
import os

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class CountOwnWeights(Hook):
    def before_train(self, runner):
        own = sum(p.numel() for p in runner.model.parameters())
        with open(os.path.join(runner.work_dir, f'rank{get_rank()}'), 'w') as file:
            file.write(str(own))
"""
PLUGIN = """
custom_imports = dict(imports=['polynl_mm', 'counting'], allow_failed_imports=False)
custom_hooks = [dict(type='CountOwnWeights')]
model['backbone'].update(
    type='WithPlugins', of='ResNet3dSlowOnly',
    plugins=[dict(cfg=dict(type='PolyNL3d', zero_init=False), blocks='last')])
optim_wrapper['clip_grad'] = dict(max_norm=0.5)
optim_wrapper['optimizer']['weight_decay'] = 0.1
optim_wrapper['paramwise_cfg'] = dict(norm_decay_mult=0.0, custom_keys={
    'poly_nl': dict(lr_mult=3.0), 'poly_nl.alpha': dict(lr_mult=9.0, decay_mult=0.0)})
param_scheduler = [dict(type='CosineAnnealingLR', T_max=2, end=2, by_epoch=True)]
"""
FSDP = """
runner_type = 'FlexibleRunner'
strategy = dict(
    type='FSDPStrategy',
    model_wrapper=dict(
        type='MMFullyShardedDataParallel',
        auto_wrap_policy=dict(type='wrap_classes', classes=('BasicBlock3d',))),
    state_dict_cfg='full')
"""


@pytest.fixture(scope="module")
def runs(tiny_config, tmp_path_factory):
    """The folder of a DDP training, and of an FSDP training that was resumed."""
    folder = tmp_path_factory.mktemp("fsdp")
    (folder / "counting.py").write_text(COUNTING)
    tiny_config(folder / "ddp.py", epochs=2, extra=PLUGIN)
    tiny_config(folder / "fsdp.py", epochs=2, extra=PLUGIN + FSDP)
    train(folder, "ddp")
    train(folder, "fsdp", "--cfg-options", "train_cfg.max_epochs=1")
    (folder / "first.json").write_text(json.dumps(losses(folder / "fsdp")))
    train(folder, "fsdp", "--resume")
    return folder


def train(folder, name, *arguments):
    command = ["bash", TOOLS / "dist_train.sh", folder / f"{name}.py", "2"]
    done = programs.run(
        [*command, "--seed", "7", "--work-dir", folder / name, *arguments],
        timeout=150,
        env={"PYTHONPATH": str(folder)},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def losses(work_dir):
    """Return loss, gradient norm and learning rate of each step of the newest run."""
    return [
        [r["epoch"], r["loss"], r["grad_norm"], r["lr"]]
        for r in read_scalars(find_scalars(work_dir))
        if "loss" in r
    ]


@pytest.mark.slow
def test_trains_and_resumes_as_ddp_does(runs):
    expected = losses(runs / "ddp")
    assert len(expected) == 6 and expected[0][1] != expected[3][1]
    found = json.loads((runs / "first.json").read_text()) + losses(runs / "fsdp")
    torch.testing.assert_close(
        torch.tensor(found), torch.tensor(expected), rtol=2e-3, atol=2e-4
    )


@pytest.mark.slow
def test_each_process_keeps_its_share(runs):
    whole, *own = (
        int((runs / name).read_text())
        for name in ("ddp/rank0", "fsdp/rank0", "fsdp/rank1")
    )
    assert sum(own) == pytest.approx(whole, rel=0.02)
    assert max(own) < 0.6 * whole


@pytest.mark.slow
def test_checkpoint_is_the_one_of_ddp(runs):
    found, expected = (
        torch.load(runs / name / "epoch_2.pth", weights_only=False)
        for name in ("fsdp", "ddp")
    )
    assert found["meta"]["epoch"] == 2 and found["meta"]["iter"] == 6
    assert found["state_dict"].keys() == expected["state_dict"].keys()
    for name, value in expected["state_dict"].items():
        torch.testing.assert_close(
            found["state_dict"][name], value, rtol=1e-3, atol=1e-4
        )
    assert sorted(p.name for p in (runs / "fsdp").glob("epoch*")) == [
        "epoch_1.pth",
        "epoch_2.pth",
    ]


@pytest.mark.slow
def test_checkpoint_can_be_evaluated_by_one_process(runs, tool, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(runs))
    arguments = [runs / "fsdp.py", runs / "fsdp" / "epoch_2.pth"]
    arguments += ["--work-dir", tmp_path, "--metrics", tmp_path / "metrics.json"]
    tool("test").main([str(argument) for argument in arguments])
    found = json.loads((tmp_path / "metrics.json").read_text())["acc/top1"]
    validated = accuracy_curve(read_scalars(find_scalars(runs / "fsdp")))
    assert found == pytest.approx(validated[-1])
