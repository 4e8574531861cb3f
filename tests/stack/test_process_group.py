import os
import subprocess
import sys

import programs
import pytest
import torch
from mmengine.config import Config

from polynl_mm.stack.process_group import prepare_process_group, set_rank_variables
from polynl_mm.user_errors import UserError

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")

ALL_RANKS_ADD = """
import sys, os
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.model import BaseModel
from torch.utils.data import DataLoader
import polynl_mm
from polynl_mm.stack.process_group import process_group

class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
    def forward(self, inputs, data_samples=None, mode='loss'):
        return dict(loss=self.layer(inputs).mean())

cfg = Config(dict(model_wrapper_cfg=dict(find_unused_parameters=True)))
with process_group(cfg, sys.argv[1]):
    data = [dict(inputs=torch.full((1,), float(os.environ['RANK'])))] * 2
    runner = Runner(Model(), sys.argv[2], train_dataloader=DataLoader(data),
                    train_cfg=dict(by_epoch=True, max_epochs=1),
                    optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
                    launcher=sys.argv[1], cfg=cfg, log_level='ERROR')
    runner.train()
    name = type(runner.model).__name__
    flag = runner.model.find_unused_parameters
    print('RESULT', torch.distributed.get_backend(), runner.world_size, name, flag)
print('LEFT', torch.distributed.is_initialized())
"""


@pytest.fixture
def clean(monkeypatch):
    for name in list(os.environ):
        if name in VARIABLES or name.startswith(("SLURM_", "OMPI_")):
            monkeypatch.delenv(name)
    # So that what the code itself sets is taken back at the end.
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize(
    ("launcher", "names"),
    [
        ("slurm", ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")),
        ("mpi", tuple(f"OMPI_COMM_WORLD_{n}" for n in ("RANK", "SIZE", "LOCAL_RANK"))),
    ],
)
def test_cpu_ranks_under_other_launchers(clean, tmp_path, launcher, names):
    env = {"CUDA_VISIBLE_DEVICES": "-1", "MASTER_PORT": free_port()}
    ranks = []
    for rank in range(2):
        values = dict(zip(names, (str(rank), "2", str(rank)), strict=True))
        ranks.append(
            programs.start(
                [sys.executable, "-c", ALL_RANKS_ADD, launcher, tmp_path],
                env={**env, **values},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
    for rank in ranks:
        said, errors = programs.finish(rank, timeout=90)
        assert rank.returncode == 0, errors
        assert "RESULT gloo 2 MMDistributedDataParallel True" in said
        assert "LEFT False" in said
        assert "destroy_process_group" not in errors


def free_port() -> str:
    import socket

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return str(server.getsockname()[1])


def test_nothing_is_done_without_a_launcher():
    cfg = Config({})
    prepare_process_group(cfg, "none")
    assert "model_wrapper_cfg" not in cfg
    assert not torch.distributed.is_initialized()


def test_accelerator_is_left_to_mmengine(clean, monkeypatch):
    monkeypatch.setattr("polynl_mm.stack.process_group.get_device", lambda: "cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    cfg = Config({})
    prepare_process_group(cfg, "pytorch")
    assert "model_wrapper_cfg" not in cfg
    assert not torch.distributed.is_initialized()
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"2 GPUs are asked for, .* has 1"):
        prepare_process_group(cfg, "pytorch")


def test_missing_variables_are_said(clean):
    with pytest.raises(UserError, match=r"torchrun.*dist_train\.sh"):
        prepare_process_group(Config({}), "pytorch")
    with pytest.raises(UserError, match=r"SLURM_PROCID.*srun"):
        prepare_process_group(Config({}), "slurm")
    with pytest.raises(UserError, match="one of none, pytorch, slurm, mpi"):
        prepare_process_group(Config({}), "torchrun")


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("gpu[03-05,9]", "gpu03"), ("alpha,beta", "alpha"), ("one", "one")],
)
def test_slurm_master_is_the_first_node(clean, nodes, first):
    for name, value in {"PROCID": "1", "NTASKS": "2", "NODELIST": nodes}.items():
        clean.setenv(f"SLURM_{name}", value)
    clean.setenv("PATH", "")  # no scontrol
    set_rank_variables("slurm")
    assert os.environ["MASTER_ADDR"] == first
    assert os.environ["RANK"] == "1"
    assert os.environ["WORLD_SIZE"] == "2"


@pytest.fixture
def on_cpu(clean, monkeypatch):
    """As rank 0 of one CPU process; returns how the group would be initialised."""
    asked = {}
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    group = "polynl_mm.stack.process_group"
    monkeypatch.setattr(f"{group}.get_device", lambda: "cpu")
    monkeypatch.setattr(f"{group}.dist.init_process_group", lambda **k: asked.update(k))
    return asked


def test_timeout_of_the_config_is_that_of_gloo(on_cpu):
    prepare_process_group(Config({}), "pytorch")
    assert on_cpu == {"backend": "gloo", "timeout": None}
    cfg = Config({"env_cfg": {"dist_cfg": {"backend": "nccl", "timeout": 90}}})
    prepare_process_group(cfg, "pytorch")
    assert on_cpu["timeout"].total_seconds() == 90


def test_flexible_runner_gets_no_devices_on_cpus(on_cpu):
    cfg = Config({"runner_type": "FlexibleRunner"})
    prepare_process_group(cfg, "pytorch")
    assert cfg.strategy.type == "DDPStrategy"
    assert cfg.strategy.model_wrapper.device_ids is None
    cfg = Config(
        {"runner_type": "FlexibleRunner", "strategy": {"type": "FSDPStrategy"}}
    )
    prepare_process_group(cfg, "pytorch")
    assert cfg.strategy == {"type": "FSDPStrategy"}


@pytest.mark.parametrize("norm", ["SyncBN", "MMSyncBN", "mmengine.SyncBN"])
def test_norms_that_synchronise_on_cpus_are_refused(on_cpu, norm):
    plugin = dict(cfg=dict(type="PolyNL3d", norm_cfg=dict(type=norm)))
    model = dict(backbone=dict(plugins=[plugin], norm_cfg=dict(type="BN3d")))
    place = "model.backbone.plugins.0.cfg.norm_cfg.type"
    with pytest.raises(UserError, match=f"{place}={norm} needs GPUs.*BN3d"):
        prepare_process_group(Config(dict(model=model)), "pytorch")


@pytest.mark.parametrize(
    "content", [{"sync_bn": "torch"}, {"strategy": {"sync_bn": "torch"}}]
)
def test_sync_bn_on_cpus_is_refused(on_cpu, content):
    with pytest.raises(UserError, match="sync_bn needs GPUs"):
        prepare_process_group(Config(content), "pytorch")
