import os
import signal
import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from polynl_mm.stack import lost_ranks
from polynl_mm.stack.lost_ranks import explaining_lost_ranks
from polynl_mm.user_errors import UserError


def lose_the_other(rank, port, said):
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    dist.all_reduce(torch.zeros(1))
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    lost_ranks.PATIENCE = 0
    try:
        with explaining_lost_ranks():
            dist.all_reduce(torch.zeros(1))
    except UserError as error:
        said.put(str(error))


def test_lost_rank_is_one_sentence():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    said = context.SimpleQueue()
    ranks = [
        context.Process(target=lose_the_other, args=(rank, port, said), daemon=True)
        for rank in range(2)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(60)
    assert ranks[0].exitcode == 0
    assert said.get().startswith("Another rank has died")


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shapes differ"), explaining_lost_ranks():
        raise RuntimeError("shapes differ")
