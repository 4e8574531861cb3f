"""The cases that groups of processes run: a network, a clip, and a loss."""

import copy
import functools

import torch
import torch.distributed as dist
from small_backbones import BACKBONES, build
from torch import nn

import polynl_mm  # noqa: F401  (registers the plugins)
from polynl_mm.clip_parallel.halos import TIME
from polynl_mm.clip_parallel.networks import clip_parallel_network
from polynl_mm.clip_parallel.shares import sharing
from polynl_mm.clip_parallel.sums import sum_over_ranks

LENGTHS = {"ResNet3d": 32, "ResNet3dCSN": 32, "ResNet2Plus1d": 32}


def wake(network: nn.Module) -> nn.Module:
    """Give every parameter and buffer that starts as the identity an effect."""
    torch.manual_seed(3)
    for parameter in network.parameters():
        if parameter.numel() <= 1 or parameter.abs().sum() == 0:
            nn.init.uniform_(parameter, 0.01, 0.1)
    network.double().train()  # which returns None in MMAction2
    return network


def own_part(x: torch.Tensor, share, axis: int) -> torch.Tensor:
    """Return this rank's frames of a clip."""
    start, end = share.cut(x.shape[axis])
    return x.narrow(axis, start, end - start)


def pooled(features, share, frames: int) -> torch.Tensor:
    """Return the mean of each sample's channels over the whole clips: (B, C)."""
    if isinstance(features, (tuple, list)):
        return torch.cat([pooled(f, share, frames) for f in features], 1)
    if features.dim() == 4:  # frames as samples
        features = features.unflatten(0, (-1, frames)).transpose(1, 2)
    y = features.flatten(2).mean(2)
    return y if share is None else sum_over_ranks(y / share.count, share)


def gradients(network, x, share, axis: int) -> list[torch.Tensor]:
    """Return the pooled features and the gradients of a loss of them."""
    own = x if share is None else own_part(x, share, axis)
    frames = own.shape[axis]
    if axis == 1:
        own = own.flatten(0, 1)
    y = pooled(network(own), share, frames)
    torch.manual_seed(5)
    loss = (y * torch.randn_like(y)).sum() + y.square().sum()
    loss.backward()
    found = []
    for parameter in network.parameters():
        grad = parameter.grad
        grad = torch.zeros_like(parameter) if grad is None else grad
        if share is not None:  # what DistributedDataParallel does
            dist.all_reduce(grad)
            grad /= share.count
        found.append(grad)
    buffers = [b.double() for b in network.buffers()]
    return [y.detach(), *found, *buffers]


def difference(network: nn.Module, x: torch.Tensor, share, axis: int = TIME) -> float:
    """Return by how much ranks and one process differ, relative to the largest."""
    alone = copy.deepcopy(network)
    with sharing(share), clip_parallel_network(network, share.count):
        found = gradients(network, x, share, axis)
    if share.index:
        return 0.0
    expected = gradients(alone, x, None, axis)
    scale = max(float(e.abs().max()) for e in expected[1:] if e.numel())
    return max(
        float((f - e).abs().max()) / max(float(e.abs().max()), 1e-3 * scale, 1e-12)
        for f, e in zip(found, expected, strict=True)
        if e.numel()
    )


def backbone(share, name: str, plugins=None) -> float:
    """Compare one of the small backbones."""
    torch.manual_seed(0)
    network = wake(build(name, plugins and dict(BACKBONES[name][2], cfg=plugins)))
    shape = BACKBONES[name][1]
    if len(shape) == 4:
        x = torch.randn(2, *shape, dtype=torch.double)  # (B, T, C, H, W)
        return difference(network, x, share, 1)
    frames = LENGTHS.get(name, shape[TIME])
    x = torch.randn(2, 3, frames, *shape[3:], dtype=torch.double)
    return difference(network, x, share)


PLAIN = {f"{n}-plain": functools.partial(backbone, name=n) for n in BACKBONES}
CASES = {**PLAIN}
