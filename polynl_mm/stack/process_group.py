"""Process groups from the same tools on CPUs (gloo) and on GPUs (nccl).

Mends: MMEngine sets a CUDA device in every distributed process, uses nccl, and gives
DistributedDataParallel device ids, none of which exist on a machine without GPUs.
Switches itself off: where an accelerator is there, MMEngine does its own set-up.
"""

import contextlib
import os
import re
import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta

import torch
import torch.distributed as dist
from mmengine.device import get_device

from polynl_mm.stack import LAUNCHERS
from polynl_mm.stack.lost_ranks import explaining_lost_ranks
from polynl_mm.user_errors import UserError

SYNC_NORMS = ("SyncBN", "MMSyncBN", "SyncBatchNorm")
DEFAULT_PORT = "29500"


@contextlib.contextmanager
def process_group(cfg, launcher: str) -> Iterator[None]:
    """Prepare a config for its launcher, and take the process group down at the end.

    Args:
        cfg (mmengine.Config): The config of the run; changed in place on CPU.
        launcher (str): ``"none"``, ``"pytorch"``, ``"slurm"`` or ``"mpi"``.

    Raises:
        UserError: If there are more processes on this machine than GPUs, or the
            launcher did not set what it should.
    """
    prepare_process_group(cfg, launcher)
    with explaining_lost_ranks():
        yield
    # Not in a finally: after an error other ranks may be gone, and waiting for them
    # here would hide the error.
    leave_process_group()


def leave_process_group() -> None:
    """Take the process group down, if there is one, at the end of the process's work.

    A thread of gloo that has just finished a collective frees its tensors, for which it
    needs Python. If Python is already going down then, the process aborts ("terminate
    called without an active exception"), after all the work is done; so the threads are
    given the interpreter for a while.
    """
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
        time.sleep(0.5)


def prepare_process_group(cfg, launcher: str) -> None:
    """Initialise gloo and set DDP for CPU where there is no accelerator.

    Args:
        cfg (mmengine.Config): The config of the run; changed in place on CPU.
        launcher (str): ``"none"``, ``"pytorch"``, ``"slurm"`` or ``"mpi"``.

    Raises:
        UserError: As :func:`process_group`.
    """
    if launcher not in LAUNCHERS:
        raise UserError(
            f"--launcher takes one of {', '.join(LAUNCHERS)}, not {launcher!r}."
        )
    if get_device() == "cpu":
        # Not what is used here; left out, it is MMEngine's default again on GPUs.
        ((cfg.get("env_cfg") or {}).get("dist_cfg") or {}).pop("backend", None)
    if launcher == "none":
        return
    set_rank_variables(launcher)
    if get_device() != "cpu":
        _check_enough_gpus()
        return
    if not dist.is_initialized():
        dist.init_process_group(backend="gloo", timeout=_timeout(cfg))
    if cfg.get("sync_bn") or (cfg.get("strategy") or {}).get("sync_bn"):
        raise UserError(
            "sync_bn needs GPUs: torch has no SyncBatchNorm for CPUs; train without it "
            "(--cfg-options sync_bn=None)."
        )
    norm = _find_sync_norm(cfg.get("model"))
    if norm is not None:
        raise UserError(
            f"{norm} needs GPUs: torch has no SyncBatchNorm for CPUs; train with "
            "another norm_cfg, such as dict(type='BN3d')."
        )
    if "runner_type" not in cfg:
        cfg.model_wrapper_cfg = _without_devices(cfg.get("model_wrapper_cfg"), cfg)
    elif "FSDP" not in str((cfg.get("strategy") or {}).get("type", "")):
        cfg.strategy = dict(cfg.get("strategy") or {"type": "DDPStrategy"})
        cfg.strategy.model_wrapper = _without_devices(
            cfg.strategy.get("model_wrapper"), cfg
        )


def _find_sync_norm(tree: object, place: str = "model") -> str | None:
    """Return where a model's config asks for synchronised normalisation, if it does."""
    if isinstance(tree, dict):
        if str(tree.get("type")).rpartition(".")[2] in SYNC_NORMS:
            return f"{place}.type={tree['type']}"
        parts = tree.items()
    elif isinstance(tree, (list, tuple)):
        parts = enumerate(tree)
    else:
        return None
    found = (_find_sync_norm(part, f"{place}.{key}") for key, part in parts)
    return next(filter(None, found), None)


def _timeout(cfg) -> timedelta | None:
    """Return how long a process waits for the others, as MMEngine reads it."""
    seconds = ((cfg.get("env_cfg") or {}).get("dist_cfg") or {}).get("timeout")
    return None if seconds is None else timedelta(seconds=int(seconds))


def _without_devices(wrapper: dict | None, cfg) -> dict:
    """Return a DDP wrapper's config that works on CPUs."""
    wrapper = dict(wrapper or {})
    if not wrapper:
        # What MMEngine uses by default, which it would give a device id.
        wrapper = {
            "type": "MMDistributedDataParallel",
            "broadcast_buffers": False,
            "find_unused_parameters": cfg.get("find_unused_parameters", False),
        }
    if "DistributedDataParallel" in str(wrapper.get("type", "DistributedDataParallel")):
        wrapper["device_ids"] = None
    return wrapper


def set_rank_variables(launcher: str) -> None:
    """Set torch's RANK, WORLD_SIZE, LOCAL_RANK and MASTER_* from the launcher's own.

    Args:
        launcher (str): ``"pytorch"``, ``"slurm"`` or ``"mpi"``.

    Raises:
        UserError: If the launcher's variables are missing.
    """
    if launcher == "slurm":
        _copy("SLURM_PROCID", "RANK", launcher)
        _copy("SLURM_NTASKS", "WORLD_SIZE", launcher)
        os.environ["LOCAL_RANK"] = os.environ.get("SLURM_LOCALID", "0")
        os.environ.setdefault("MASTER_ADDR", _first_slurm_node())
    elif launcher == "mpi":
        _copy("OMPI_COMM_WORLD_RANK", "RANK", launcher)
        _copy("OMPI_COMM_WORLD_SIZE", "WORLD_SIZE", launcher)
        _copy("OMPI_COMM_WORLD_LOCAL_RANK", "LOCAL_RANK", launcher)
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    elif "RANK" not in os.environ:
        raise UserError(
            "--launcher pytorch expects torchrun's variables (RANK and others), which "
            "are not set; start with tools/dist_train.sh or tools/dist_test.sh."
        )
    os.environ.setdefault("MASTER_PORT", DEFAULT_PORT)


def _copy(source: str, target: str, launcher: str) -> None:
    if source not in os.environ:
        raise UserError(
            f"--launcher {launcher} expects {source}, which is not set; "
            "is this running under "
            + {"slurm": "srun", "mpi": "mpirun"}[launcher]
            + "?"
        )
    os.environ[target] = os.environ[source]


def _first_slurm_node() -> str:
    nodes = os.environ.get("SLURM_NODELIST", "")
    if not nodes:
        return "127.0.0.1"
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        listed = subprocess.run(
            ["scontrol", "show", "hostnames", nodes],
            capture_output=True, text=True, check=True, timeout=30,
        ).stdout.split()  # fmt: skip
        if listed:
            return listed[0]
    # Without scontrol: "gpu[03-05,9]" begins with gpu03.
    match = re.match(r"([^,\[]+)(?:\[(\w+))?", nodes)
    return match[1] + (match[2] or "")


def _check_enough_gpus() -> None:
    if not torch.cuda.is_available():
        return
    local_rank, found = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if local_rank >= found:
        wanted = int(os.environ.get("LOCAL_WORLD_SIZE", local_rank + 1))
        raise UserError(
            f"{wanted} GPUs are asked for, but this machine has {found}: ask for at "
            f"most {found}, or set CUDA_VISIBLE_DEVICES=-1 to train on CPUs."
        )
