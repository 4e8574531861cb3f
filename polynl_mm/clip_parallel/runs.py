"""Runs whose clips are shared over ranks: from a config to a prepared Runner."""

import contextlib
import itertools
import os
from collections.abc import Iterator

from mmengine.dist import all_gather_object, get_world_size, is_main_process
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper

from polynl_mm.clip_parallel.networks import clip_parallel_network
from polynl_mm.clip_parallel.same_samples import SameSamplesHook
from polynl_mm.clip_parallel.samplers import sample_by_group
from polynl_mm.clip_parallel.shares import form_groups, sharing
from polynl_mm.clip_parallel.sums import all_sum
from polynl_mm.user_errors import UserError

KEY = "clip_parallel"


def ranks_of(cfg, given: int | None, testing: bool = False) -> int:
    """Return how many ranks share a clip: the option, else the config's.

    Args:
        cfg (mmengine.Config): The config of a run; its key is set in place.
        given (int | None): ``--clip-parallel``.
        testing (bool): Whether one process may do without what the config says.

    Returns:
        int: 1 where clips are not shared.

    Raises:
        UserError: If it is no whole number from 1.
    """
    ranks = cfg.get(KEY, 1) if given is None else given
    if isinstance(ranks, bool) or not isinstance(ranks, int) or ranks < 1:
        name = f"the config's {KEY}" if given is None else "--clip-parallel"
        raise UserError(f"{name} is a whole number of ranks from 1, not {ranks!r}.")
    if testing and given is None and ranks > 1 and cfg.get("launcher") == "none":
        print_log("Clips are not shared: one process evaluates them.", logger="current")
        ranks = 1
    if given is not None or KEY in cfg:
        cfg[KEY] = ranks
    return ranks


def sample_by_groups(cfg, ranks: int) -> None:
    """Deal samples out to groups of ranks, in place of ranks; in place.

    Called once the process group is there, and before the Runner is built.

    Args:
        cfg (mmengine.Config): The config of a run.
        ranks (int): How many ranks share a clip.

    Raises:
        UserError: If the number of processes, or the config, does not allow it.
    """
    if ranks == 1:
        return
    _check_world_size(int(os.environ.get("WORLD_SIZE", 1)), ranks)
    if "runner_type" in cfg:
        raise UserError(
            "Clips cannot be shared over ranks by another runner_type (FSDP, say); "
            "take the config without it."
        )
    for split in ("train", "val", "test"):
        loader = cfg.get(f"{split}_dataloader")
        if loader:
            sample_by_group(loader, f"{split}_dataloader", ranks)
    # Without, each process would hold its gradients twice.
    wrapper = dict(cfg.get("model_wrapper_cfg") or {})
    if not wrapper:
        wrapper = {
            "type": "MMDistributedDataParallel",
            "broadcast_buffers": False,
            "find_unused_parameters": cfg.get("find_unused_parameters", False),
        }
    if "DistributedDataParallel" in str(wrapper.get("type", "")):
        wrapper.setdefault("gradient_as_bucket_view", True)
    cfg.model_wrapper_cfg = wrapper
    scaling = cfg.get("auto_scale_lr") or {}
    if scaling.get("base_batch_size"):
        # MMEngine multiplies a rank's batch by the ranks, of which R hold the same.
        scaling["base_batch_size"] *= ranks


def _check_world_size(processes: int, ranks: int) -> None:
    """Refuse a number of processes that is no multiple of the ranks of a group."""
    if processes % ranks:
        fitting = [n for n in (processes - processes % ranks,) if n]
        fitting.append(processes - processes % ranks + ranks)
        raise UserError(
            f"{processes} process{'es' if processes > 1 else ''} cannot share clips "
            f"over {ranks} ranks each; start {' or '.join(map(str, fitting))}, such as "
            f"tools/dist_train.sh CONFIG {fitting[-1]} --clip-parallel {ranks}."
        )


@contextlib.contextmanager
def shared_clips(runner, ranks: int) -> Iterator[None]:
    """Share the clips of a run over groups of ranks.

    Args:
        runner (mmengine.Runner): Built by a config that samples by groups.
        ranks (int): How many ranks share a clip; 1 changes nothing.

    Raises:
        UserError: If the model mixes time in a way that is not known.
    """
    if ranks == 1:
        yield
        return
    model = runner.model
    model = model.module if is_model_wrapper(model) else model
    share = form_groups(ranks)
    # With nccl, all ranks of a group meet once before two of them exchange frames.
    all_sum(next(model.parameters()).new_zeros(1), share)
    runner.register_hook(SameSamplesHook(share, _segments_of(model)))
    print_log(
        f"Each clip is shared over {ranks} ranks: {get_world_size() // ranks} groups.",
        logger="current",
    )
    with (
        sharing(share),
        clip_parallel_network(model, ranks),
        _results_of_first_ranks(ranks),
    ):
        yield


def _segments_of(model) -> int | None:
    """Return how many frames a network that takes them as samples sees as one clip."""
    found = {getattr(m, "num_segments", None) for m in model.modules()}
    for module in model.modules():
        for hook in module._forward_hooks.values():
            found.add((getattr(hook, "keywords", None) or {}).get("num_segments"))
    return max((n for n in found if isinstance(n, int)), default=None)


@contextlib.contextmanager
def _results_of_first_ranks(ranks: int) -> Iterator[None]:
    """Evaluate each sample once, though all ranks of a group have its prediction."""
    from mmengine.evaluator import metric

    original = metric.collect_results

    def collect(results, size, device="cpu", tmpdir=None):
        parts = all_gather_object(results)[::ranks]
        if not is_main_process():
            return None
        rounds = itertools.zip_longest(*parts)  # as the sampler dealt them out
        return [x for turn in rounds for x in turn if x is not None][:size]

    metric.collect_results = collect
    try:
        yield
    finally:
        metric.collect_results = original
