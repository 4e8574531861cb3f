"""The blocks in the form of their formulas, for export.

What makes the schedules of training fast (blocks of rows, chunks that depend on the
batch, sorting) has no counterpart in ONNX, or becomes hundreds of operators. These
modules compute the same from the same weights in a few products, of any batch size.
Poly-NL and the dot product stay linear in the positions; the Gaussian forms and the
concatenation make the whole N x N affinity. The regions of PyramidNL, for which ONNX
has no pooling, are products with fixed matrices of averages.
"""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from polynl_mm.ops import reference
from polynl_mm.plugins import (
    NonLocalBlock2d,
    NonLocalBlock3d,
    PolyNL2d,
    PolyNL3d,
    PyramidNL2d,
    PyramidNL3d,
)
from polynl_mm.plugins.base import (
    groups_as_samples,
    samples_as_groups,
)
from polynl_mm.plugins.key_positions import by_temporal_groups


def with_formulas(model: nn.Module) -> nn.Module:
    """Return a copy of a model, its Poly-NL, non-local and pyramid blocks as formulas.

    Args:
        model (nn.Module): Any network; it is not changed.

    Returns:
        nn.Module: The copy.
    """
    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            formula = _FORMULAS.get(type(child))
            if formula is not None:
                setattr(parent, name, formula(child))
    return model


class _PolyNLFormula(nn.Module):
    """``alpha * norm(out(mean_j(theta x_j * phi x_j) * g x_i)) + beta * x``."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to (B, C, *positions)."""
        block = self.block
        y = block.by_layers(block.placed(x))
        if block.norm is not None:
            y = block.norm(y)
        return block.alpha * y + block.beta * x


class _NonLocalFormula(nn.Module):
    """``x + conv_out(affinity(theta x, phi x) g x)``."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to (B, C, *positions)."""
        return by_temporal_groups(self._forward, x, self.block.temporal_groups)

    def _forward(self, x: Tensor) -> Tensor:
        block = self.block
        read = block.placed(x)
        seen = block.pool(read) if getattr(block, "pool_first", False) else read
        query = read if block.mode == "gaussian" else block.theta(read)
        key = block.phi(seen) if hasattr(block, "phi") else seen
        theta, phi, g = (
            groups_as_samples(f, block.axes) for f in (query, key, block.g(seen))
        )
        y = self._average(theta, phi, g)
        y = samples_as_groups(y, block.axes, x.shape[0], x.shape[2:])
        return x + block.conv_out(y)

    def _average(self, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        mode = self.block.mode
        if mode == "dot_product":
            return (g @ phi.mT / phi.shape[2]) @ theta  # (B, V, K) @ (B, K, N)
        if mode == "concatenation":
            return self.block.concatenate(theta, phi, g)
        scaled = mode == "embedded_gaussian" and self.block.use_scale
        return reference.gaussian(theta, phi, g, scale=scaled)


class _PyramidNLFormula(nn.Module):
    """``x + norm(out(attention to the regions))``."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to (B, C, *positions)."""
        block = self.block
        y = block.out(block.context(block.placed(x), pool=_pool_by_products))
        return x + (y if block.norm is None else block.norm(y))


def _pool_by_products(
    x: Tensor, shape: Sequence[int], grids: Sequence[Sequence[int]]
) -> list[Tensor]:
    samples = x.unflatten(2, shape)
    return [_average_regions(samples, grid) for grid in grids]


def _average_regions(samples: Tensor, grid: Sequence[int]) -> Tensor:
    """Return what adaptive average pooling to a grid gives: (B, C, *axes) -> (B, C, S).

    The average over a box is that along one axis after the other.
    """
    for axis, count in enumerate(grid, start=2):
        matrix = _averages(samples.shape[axis], count).to(samples)  # (S, length)
        samples = (samples.movedim(axis, -1) @ matrix.mT).movedim(-1, axis)
    return samples.flatten(2)


def _averages(length: int, count: int) -> Tensor:
    """Return the rows that average the parts of an axis, which may overlap."""
    count = min(count, length)
    matrix = torch.zeros(count, length, dtype=torch.float64)
    for part in range(count):
        start, stop = part * length // count, -(-(part + 1) * length // count)
        matrix[part, start:stop] = 1 / (stop - start)
    return matrix


_FORMULAS: dict[type[nn.Module], Callable[[nn.Module], nn.Module]] = {
    PolyNL2d: _PolyNLFormula,
    PolyNL3d: _PolyNLFormula,
    NonLocalBlock2d: _NonLocalFormula,
    NonLocalBlock3d: _NonLocalFormula,
    PyramidNL2d: _PyramidNLFormula,
    PyramidNL3d: _PyramidNLFormula,
}
