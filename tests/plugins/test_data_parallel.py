"""Every plugin under DDP: two processes with half a batch each equal one with all.

One pair of gloo processes goes through all plugins; the tests read what they found.
"""

import copy
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from closeness import assert_close
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

import polynl_mm

KINDS = sorted(name for name in polynl_mm.__all__ if name.endswith(("2d", "3d")))
MODES = ("embedded_gaussian", "gaussian", "dot_product", "concatenation")
# What else decides which weights there are, or which take part.
VARIANTS = [
    *(("NonLocalBlock3d", dict(mode=mode)) for mode in MODES),
    *(("NonLocalBlock2d", dict(mode=mode, sub_sample=True)) for mode in MODES),
    ("PolyNL3d", dict(reduction=2, norm_cfg=dict(type="BN3d"))),
    ("PolyNL3d", dict(axes="time")),
    ("SpectralNL3d", dict(order=2, stable=True, num_units=2)),
    ("SpectralNL3d", dict(order=4)),
    ("NonLocalStage3d", dict(num_units=2)),
    ("CompactGeneralizedNL3d", dict(groups=2, kernel="rbf", scale=True)),
    ("CrissCross3d", dict(recurrence=1)),
]


def name_case(case):
    kind, arguments = case
    return "-".join([kind, *(f"{k}={v}" for k, v in arguments.items())])


CASES = {name_case(case): case for case in [*((k, {}) for k in KINDS), *VARIANTS]}
POSITIONS = {"2d": (4, 5), "3d": (2, 3, 4)}
WIDTH = 16


def build(case):
    """Return a network around a plugin whose every weight has a gradient."""
    kind, arguments = CASES[case]
    dims = kind[-2:]
    conv = nn.Conv3d if dims == "3d" else nn.Conv2d
    torch.manual_seed(0)
    plugin = getattr(polynl_mm, kind)(WIDTH, zero_init=False, **arguments)
    network = nn.Sequential(conv(3, WIDTH, 1), plugin, nn.Flatten(), nn.LazyLinear(2))
    network = network.double()
    network(torch.zeros(1, 3, *POSITIONS[dims], dtype=torch.float64))
    for parameter in plugin.parameters():
        if parameter.dim() <= 1:  # biases, and scales that start at zero
            nn.init.uniform_(parameter, 0.3, 0.6)
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.eval()  # its statistics are those of each process
    return network


def train(network, x, target):
    """Take two steps and return the gradients of the first, and the weights."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    gradients = None
    # Two: DDP finds out in the second that a weight took no part in the first.
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.mse_loss(network(x), target).backward()
        found = {
            n: p.grad.clone() for n, p in named_weights(network) if p.grad is not None
        }
        gradients = gradients or found
        optimizer.step()
    return gradients, {n: p.detach() for n, p in named_weights(network)}


def named_weights(network):
    for name, parameter in network.named_parameters():
        yield name.removeprefix("module."), parameter


def data_for(case):
    generator = torch.Generator().manual_seed(1)
    shape = (4, 3, *POSITIONS[CASES[case][0][-2:]])
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    target = torch.randn(4, 2, generator=generator, dtype=torch.float64)
    return x, target


def train_all_on_two(rank, folder):
    """Run in each of the two processes: train every network under DDP."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    results = {}
    for case in CASES:
        network = build(case)
        mine = slice(rank * 2, rank * 2 + 2)
        x, target = data_for(case)
        try:
            wrapped = DistributedDataParallel(network, find_unused_parameters=False)
            results[case] = train(wrapped, x[mine], target[mine])
        except RuntimeError as error:  # the same in both processes
            results[case] = str(error)
    torch.save(results, f"{folder}/rank{rank}.pth")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def on_two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(train_all_on_two, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"rank{rank}.pth") for rank in range(2)]


@pytest.mark.parametrize("case", CASES)
def test_two_processes_equal_one(case, on_two):
    network = build(case)
    assert all(p.requires_grad for p in network.parameters())
    x, target = data_for(case)
    halves = [
        train(copy.deepcopy(network), x[half], target[half])[0]
        for half in (slice(2), slice(2, 4))
    ]
    expected = train(network, x, target)
    for found in on_two:
        assert not isinstance(found[case], str), found[case]
        for what, own, whole in zip(
            ("gradient", "weight"), found[case], expected, strict=True
        ):
            assert own.keys() == whole.keys()
            for name, value in whole.items():
                assert_close_or_zero(own[name], value, f"{what} of {name}")
    # Otherwise equality would not show that the processes have exchanged anything.
    different = [n for n in expected[0] if not torch.allclose(*(h[n] for h in halves))]
    assert any(name.startswith("1.") for name in different)


def assert_close_or_zero(found, expected, name):
    if expected.abs().max() < 1e-12:  # a bias before a softmax: only rounding is left
        assert found.abs().max() < 1e-12, name
    else:
        assert_close(found, expected, name)
