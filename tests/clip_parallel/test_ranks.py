"""The parts of a clip on the ranks of a process group give what the whole gives."""

import pickle
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from shared_plugins import assert_equal, build, cases, clip, result

from polynl_mm.clip_parallel.ranks import Ranks
from polynl_mm.ops.summaries import shared_among

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
            dist.all_reduce(gradient, group=holder.group)
            gradient /= holder.count
    return found | {n: b.clone() for n, b in block.named_buffers()}


def _rank(rank, folder):
    torch.set_num_threads(1)
    meet = f"file://{folder}/meet"
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=3)
    groups = [dist.new_group([0, 1]), dist.group.WORLD]
    found = [
        _average(build(plugin, options), clip(8), Ranks(group), lengths)
        for lengths, group in zip(PARTS, groups, strict=True)
        if rank < len(lengths)
        for plugin, options in cases()
    ]
    Path(folder, str(rank)).write_bytes(pickle.dumps(found))
    dist.destroy_process_group()


def test_two_and_three_ranks_of_unequal_length_equal_one_process(tmp_path):
    mp.spawn(_rank, (str(tmp_path),), nprocs=3)
    wholes = [
        result(build(plugin, options), clip(8), lambda block, x: block(x))
        for plugin, options in cases()
    ]
    names = [f"{plugin.__name__} {options}" for plugin, options in cases()]
    for rank, groups in enumerate((2, 2, 1)):
        found = pickle.loads(Path(tmp_path, str(rank)).read_bytes())
        assert len(found) == groups * len(names)
        for name, one, whole in zip(
            names * groups, found, wholes * groups, strict=True
        ):
            try:
                assert_equal(one, whole)
            except AssertionError as error:
                raise AssertionError(f"rank {rank}, {name}: {error}") from None
