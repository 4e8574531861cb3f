"""The parts of a clip on the ranks of a process group give what the whole gives."""

import pickle
import tempfile
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from polynl_mm.clip_parallel.ranks import Ranks
from polynl_mm.ops.summaries import shared_among
from tests.shared_plugins import assert_equal, build, cases, clip, result

PARTS = [(6, 2), (2, 4, 2)]


def _average(block, x, holder, lengths):
    """Return a result with every rank's loss and DDP's average of the gradients."""
    x = x.detach().requires_grad_()
    with shared_among(holder):
        own = block(x.split(lengths, dim=2)[holder.index])
        y = holder.gather(own, 2)  # the loss is that of all, on every rank
        weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
        (weight.cos() * y.square() + weight * y).sum().backward()
    found = {"output": y.detach(), "input": x.grad}
    found |= {f"gradient of {n}": p.grad for n, p in block.named_parameters()}
    for name, gradient in found.items():
        if name != "output" and gradient is not None:
            dist.all_reduce(gradient)
            gradient /= holder.count
    return found | {n: b.clone() for n, b in block.named_buffers()}


def _rank(rank, lengths, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meet",
        rank=rank,
        world_size=len(lengths),
    )
    found = [
        _average(build(plugin, options), clip(8), Ranks(), lengths)
        for plugin, options in cases()
    ]
    Path(folder, str(rank)).write_bytes(pickle.dumps(found))
    dist.destroy_process_group()


@pytest.mark.parametrize("lengths", PARTS, ids=str)
def test_ranks_of_unequal_length_equal_one_process(lengths):
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_rank, (lengths, folder), nprocs=len(lengths))
        ranks = [
            pickle.loads(Path(folder, str(rank)).read_bytes())
            for rank in range(len(lengths))
        ]
    for place, (plugin, options) in enumerate(cases()):
        whole = result(build(plugin, options), clip(8), lambda block, x: block(x))
        for found in ranks:
            try:
                assert_equal(found[place], whole)
            except AssertionError as error:
                raise AssertionError(f"{plugin.__name__} {options}: {error}") from None
