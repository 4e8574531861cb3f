"""The norms of plugins, with the statistics of a clip whose parts others hold."""

import torch
import torch.nn as nn
from torch import Tensor

from polynl_mm.ops.precision import accumulate_dtype
from polynl_mm.ops.summaries import Holder

_Batch = nn.modules.batchnorm._BatchNorm
_Instance = nn.modules.instancenorm._InstanceNorm


def normalise(norm: nn.Module, x: Tensor, others: Holder | None) -> Tensor:
    """Apply a norm to a part of a clip as to the whole.

    Args:
        norm (nn.Module): Of batch, groups or instances; a SyncBatchNorm, or one whose
            class has ``asks_others``, asks the others itself.
        x (Tensor): Features, (B, C, *positions).
        others (Holder, optional): Who holds the other parts; None for nobody.

    Returns:
        Tensor: Features of the same shape.

    Raises:
        ValueError: If it is a norm of which it is not known what it takes over time.
    """
    asks = isinstance(norm, nn.SyncBatchNorm) or getattr(norm, "asks_others", False)
    if others is None or asks:
        return norm(x)
    if isinstance(norm, (_Batch, _Instance)):
        by_input = norm.training or norm.running_mean is None
        if isinstance(norm, _Instance):
            by_input = norm.training or not norm.track_running_stats
        if not by_input:
            return norm(x)
    if isinstance(norm, _Instance) and not norm.track_running_stats and x.dim() == 5:
        return _affine(norm, _standard(x, x.shape[1], norm.eps, others))
    if isinstance(norm, nn.GroupNorm):
        if x.dim() == 4:
            return norm(x)  # of frames taken as samples, which are whole
        return _affine(norm, _standard(x, norm.num_groups, norm.eps, others))
    if isinstance(norm, _Batch):
        return _normalise_batch(norm, x, others)
    if isinstance(norm, _Instance) and x.dim() == 4:
        return norm(x)
    raise ValueError(
        f"{type(norm).__name__} in a plugin cannot be shared over parts of a clip: it "
        "is not known what it takes over time; use BatchNorm or GroupNorm."
    )


def _standard(x: Tensor, groups: int, eps: float, others: Holder) -> Tensor:
    """Normalise each group of channels of each clip, without weights."""
    parts = x.unflatten(1, (groups, -1)).flatten(2).to(accumulate_dtype(x))
    mean, var, _ = _statistics(parts, (2,), others)
    return ((parts - mean) * (var + eps).rsqrt()).view(x.shape).to(x.dtype)


def _normalise_batch(norm: _Batch, x: Tensor, others: Holder) -> Tensor:
    axes = (0, *range(2, x.dim()))
    wide = x.to(accumulate_dtype(x))
    mean, var, count = _statistics(wide, axes, others)
    if norm.training and norm.track_running_stats:
        with torch.no_grad():
            norm.num_batches_tracked.add_(1)
            step = norm.momentum
            if step is None:
                step = 1 / float(norm.num_batches_tracked)
            unbiased = var * (count / (count - 1).clamp_min(1))
            for kept, now in ((norm.running_mean, mean), (norm.running_var, unbiased)):
                kept.lerp_(now.flatten().to(kept.dtype), step)
    y = (wide - mean) * (var + norm.eps).rsqrt()
    return _affine(norm, y.to(x.dtype))


def _statistics(
    x: Tensor, axes: tuple[int, ...], others: Holder
) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, variance and number of all parts: twice the channels travel."""
    number = x.new_tensor([float(x.numel())])
    total, number = others.sum(x.sum(axes, keepdim=True), number)
    count = number / total.numel()
    mean = total / count
    # A variance is no mean of squares minus a squared mean.
    (spread,) = others.sum((x - mean).square().sum(axes, keepdim=True))
    return mean, spread / count, count


def _affine(norm: nn.Module, y: Tensor) -> Tensor:
    if norm.weight is None:
        return y
    shape = (1, -1, *[1] * (y.dim() - 2))
    weight, bias = (t.view(shape).to(y.dtype) for t in (norm.weight, norm.bias))
    return torch.addcmul(bias, y, weight)
