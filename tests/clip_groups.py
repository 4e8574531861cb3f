"""Networks on clips that processes share, against one process: what the ranks run.

Every rank runs its share of each case; rank 0 then runs the whole clip alone, and
writes by how much they differ.
"""

import datetime
import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

RENDEZVOUS = datetime.timedelta(seconds=240)


def run_cases(rank: int, count: int, folder: str, names: list[str]) -> None:
    """Run cases as one rank of a group that shares all clips."""
    sys.path.insert(0, str(Path(__file__).parent))
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=count,
        timeout=RENDEZVOUS,
    )
    from clip_cases import CASES, PLUGIN_CASES

    from polynl_mm.clip_parallel.shares import form_groups

    share = form_groups(count)
    found = {}
    for name in names:
        try:
            found[name] = {**CASES, **PLUGIN_CASES}[name](share)
        except Exception as error:  # so that the other cases are run
            import traceback

            traceback.print_exc()
            found[name] = f"{type(error).__name__}: {error}"
    if rank == 0:
        Path(folder, "found.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


def run_group(count: int, folder: Path, names: list[str]) -> dict:
    """Return what the cases found, run by so many processes."""
    torch.multiprocessing.spawn(
        run_cases, (count, str(folder), list(names)), nprocs=count
    )
    return json.loads(Path(folder, "found.json").read_text())
