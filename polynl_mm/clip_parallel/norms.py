"""Norms whose statistics are those of the whole clip, and of the group's batch."""

import torch
import torch.nn as nn
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from polynl_mm.clip_parallel.shares import Share, current_share
from polynl_mm.clip_parallel.sums import all_sum
from polynl_mm.ops.precision import accumulate_dtype


class _Normalise(torch.autograd.Function):
    """Normalise channels by their mean and variance over all ranks of a group.

    Keeps its input and two numbers a channel, as torch's own does.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, eps, share):
        """Return what is normalised, the mean, and the variance: (C,) each."""
        dtype, axes = accumulate_dtype(x), _all_but_channels(x)
        count = x.numel() // x.shape[1] * share.count
        mean = all_sum(x.sum(axes, dtype=dtype), share) / count
        var, own = torch.var_mean(x.to(dtype), axes, correction=0)
        # A variance is no mean of squares minus a squared mean.
        spread = (var + (own - mean).square()) / share.count
        var = all_sum(spread, share)
        ctx.save_for_backward(x, weight, mean, var)
        ctx.eps, ctx.share, ctx.count = eps, share, count
        ctx.mark_non_differentiable(mean, var)
        y = _affine(x, mean, var, weight, bias, eps)
        return y, mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, *_):
        x, weight, mean, var = ctx.saved_tensors
        dtype, axes = mean.dtype, _all_but_channels(x)
        scale = (var + ctx.eps).rsqrt()
        centred = _affine(x, mean, var, None, None, ctx.eps)
        of_bias = grad.sum(axes, dtype=dtype)
        of_weight = (grad.to(dtype) * centred).sum(axes)
        of_x = None
        if ctx.needs_input_grad[0]:
            sums = all_sum(torch.stack([of_bias, of_weight]), ctx.share) / ctx.count
            if weight is not None:
                scale = scale * weight.to(dtype)
            shape = (1, -1, *[1] * (x.dim() - 2))
            of_x = centred.mul_(-(sums[1]).to(x.dtype).view(shape))
            of_x += grad
            of_x -= sums[0].to(x.dtype).view(shape)
            of_x *= scale.to(x.dtype).view(shape)
        if weight is None:
            return of_x, None, None, None, None
        return of_x, of_weight.to(weight.dtype), of_bias.to(weight.dtype), None, None


def _all_but_channels(x: Tensor) -> list[int]:
    return [0, *range(2, x.dim())]


def _affine(x, mean, var, weight, bias, eps) -> Tensor:
    """Subtract the mean, divide by the deviation, and apply weight and bias."""
    given = (None if t is None else t.to(mean.dtype) for t in (weight, bias))
    with torch.autocast(x.device.type, enabled=False):
        return functional.batch_norm(x, mean, var, *given, eps=eps)


class _SharedBatchNorm:
    """A BatchNorm whose clips are shared over ranks."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise; in training, by the statistics of all ranks of the group."""
        share = current_share()
        by_batch = self.training or self.running_mean is None
        if share is None or not by_batch:
            return super().forward(x)
        self._check_input_dim(x)
        y, mean, var = _Normalise.apply(x, self.weight, self.bias, self.eps, share)
        if self.training and self.track_running_stats:
            self._keep(mean, var, x.numel() // x.shape[1] * share.count)
        return y

    @torch.no_grad()
    def _keep(self, mean: Tensor, var: Tensor, count: int) -> None:
        """Move the running statistics, as torch does."""
        self.num_batches_tracked.add_(1)
        share = self.momentum
        if share is None:
            share = 1 / float(self.num_batches_tracked)
        var = var * (count / max(count - 1, 1))
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(var.to(self.running_var.dtype), share)


class SharedBatchNorm1d(_SharedBatchNorm, nn.BatchNorm1d):
    """A BatchNorm1d whose clips are shared over ranks."""


class SharedBatchNorm2d(_SharedBatchNorm, nn.BatchNorm2d):
    """A BatchNorm2d, of frames taken as samples, whose clips are shared over ranks."""


class SharedBatchNorm3d(_SharedBatchNorm, nn.BatchNorm3d):
    """A BatchNorm3d whose clips are shared over ranks."""


class SharedGroupNorm(nn.GroupNorm):
    """A GroupNorm whose clips are shared over ranks."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the groups of channels of each whole clip."""
        share = current_share()
        if share is None or x.dim() != 5:
            return super().forward(x)  # frames taken as samples are whole
        y = _by_groups(x, self.num_groups, self.eps, share)
        if self.weight is None:
            return y
        shape = (1, -1, 1, 1, 1)
        weight, bias = (t.view(shape).to(y.dtype) for t in (self.weight, self.bias))
        return torch.addcmul(bias, y, weight)


class SharedInstanceNorm3d(nn.InstanceNorm3d):
    """An InstanceNorm3d whose clips are shared over ranks."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each channel of each whole clip."""
        share = current_share()
        if share is None or (self.track_running_stats and not self.training):
            return super().forward(x)
        y = _by_groups(x, x.shape[1], self.eps, share)
        if self.weight is None:
            return y
        shape = (1, -1, 1, 1, 1)
        return torch.addcmul(self.bias.view(shape), y, self.weight.view(shape))


def _by_groups(x: Tensor, groups: int, eps: float, share: Share) -> Tensor:
    """Normalise each of so many parts of each clip's channels: same shape."""
    parts = x.reshape(1, x.shape[0] * groups, -1)  # (1, B * groups, C / groups * N)
    return _Normalise.apply(parts, None, None, eps, share)[0].view(x.shape)
