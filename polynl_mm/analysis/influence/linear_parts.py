"""Projections and norms as linear maps: a matrix or a scale, and what is constant."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def apply_weight(conv: nn.Module, x: Tensor) -> Tensor:
    """Apply a pointwise convolution without its bias.

    Args:
        conv (nn.Module): A convolution of size 1.
        x (Tensor): (K, N).

    Returns:
        Tensor: (C, N).

    Raises:
        ValueError: If the layer is no such convolution.
    """
    # mmcv's own are subclasses of torch's; another layer of a conv_cfg may do anything.
    if not isinstance(conv, _CONVOLUTIONS) or max(conv.kernel_size) > 1:
        raise ValueError(
            f"What a position contributes is known of plugins whose projections are "
            f"convolutions of size 1, not of a {type(conv).__name__}."
        )
    weight = conv.weight.flatten(1).to(x.dtype)
    if conv.groups == 1:
        return weight @ x
    return functional.conv1d(x[None], weight.unsqueeze(2), groups=conv.groups)[0]


def bias_of(conv: nn.Module, like: Tensor) -> Tensor:
    """Return a convolution's bias, zeros where it has none.

    Args:
        conv (nn.Module): The convolution.
        like (Tensor): Of the type and on the device that are wanted.

    Returns:
        Tensor: (C,).
    """
    if conv.bias is None:
        return like.new_zeros(conv.out_channels)
    return conv.bias.to(like.dtype)


def project(conv: nn.Module, x: Tensor) -> Tensor:
    """Apply a pointwise convolution, (K, N) -> (C, N)."""
    return apply_weight(conv, x) + bias_of(conv, x).unsqueeze(1)


def norm_as_affine(
    norm: nn.Module, find_input: Callable[[], Tensor]
) -> tuple[Tensor, Tensor]:
    """Return a norm in evaluation mode as a scale and a shift of each channel.

    Those of a BatchNorm are constants. A GroupNorm's depend on its input; for this very
    input they are constants, too.

    Args:
        norm (nn.Module): The norm.
        find_input (Callable[[], Tensor]): Returns what goes into it, (1, C,
            *positions); called only where its statistics are those of its input.

    Returns:
        tuple[Tensor, Tensor]: The scale and the shift, (C,) each.

    Raises:
        ValueError: If the norm is of no known type.
    """
    if isinstance(norm, _BatchNorm | _InstanceNorm) and norm.running_mean is not None:
        mean, variance = norm.running_mean, norm.running_var
    elif isinstance(norm, nn.GroupNorm | _InstanceNorm):
        y = find_input()
        groups = getattr(norm, "num_groups", y.shape[1])
        parts = y[0].unflatten(0, (groups, -1)).flatten(1)  # (groups, ...)
        size = y.shape[1] // groups
        mean = parts.mean(dim=1).repeat_interleave(size)
        variance = parts.var(dim=1, unbiased=False).repeat_interleave(size)
    else:
        raise ValueError(
            f"What a position contributes is known of plugins with a BatchNorm, "
            f"GroupNorm or InstanceNorm, not with a {type(norm).__name__}"
            f"{' without running statistics' if isinstance(norm, _BatchNorm) else ''}."
        )
    scale = (variance + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -mean * scale
    if norm.bias is not None:
        shift = shift + norm.bias
    return scale, shift


def layer_norm_terms(
    norm: nn.LayerNorm, terms: Tensor, parts: int = 1
) -> tuple[Tensor, Tensor]:
    """Normalise a sum over positions, term by term, with the statistics of the sum.

    Args:
        norm (nn.LayerNorm): The norm, over the channels of each part.
        terms (Tensor): Of the sum that is normalised, (K, N).
        parts (int): Equal parts of the channels, each for itself.

    Returns:
        tuple[Tensor, Tensor]: The normalised terms, (K, N), and what is constant,
        (K,).
    """
    total = terms.sum(dim=1).unflatten(0, (parts, -1))
    deviation = (total.var(dim=1, unbiased=False) + norm.eps).sqrt()  # (parts,)
    split = terms.unflatten(0, (parts, -1))  # (parts, K / parts, N)
    centred = split - split.mean(dim=1, keepdim=True)
    weight = norm.weight.to(terms.dtype)[:, None] / deviation[:, None, None]
    return (centred * weight).flatten(0, 1), norm.bias.to(terms.dtype).repeat(parts)


def secant_of_sigmoid(constant: Tensor, total: Tensor) -> Tensor:
    """Return the sigmoid's mean slope between a constant and a total.

    With it the sigmoid's change is a sum over what leads from the one to the other
    (the rescale rule of DeepLIFT, Shrikumar et al., ICML 2017).

    Args:
        constant (Tensor): (C,).
        total (Tensor): (C,).

    Returns:
        Tensor: (C,), from 0 to 0.25.
    """
    change = total - constant
    near = change.abs() < torch.finfo(change.dtype).eps ** 0.5
    slope = total.sigmoid() * (1 - total.sigmoid())
    rise = total.sigmoid() - constant.sigmoid()
    return torch.where(near, slope, rise / change.masked_fill(near, 1))
