"""Random inputs for the operations, and the ids under which tests show them."""

import torch
from torch import Tensor

DTYPES = [torch.float64, torch.float32]


def draw(
    shapes: dict[str, tuple[int, ...]],
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    mean: float = 0.3,
) -> dict[str, Tensor]:
    """Return named normal tensors, off zero as features behind a ReLU are."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator, dtype=dtype) + mean
        for name, shape in shapes.items()
    }


def projections(batch, width, value_width, queries, keys=None, **options):
    """Return theta (B, K, N), phi (B, K, M) and g (B, V, M)."""
    keys = queries if keys is None else keys
    shapes = {
        "theta": (batch, width, queries),
        "phi": (batch, width, keys),
        "g": (batch, value_width, keys),
    }
    return draw(shapes, **options)


def strided(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the same values, none of them contiguous."""
    views = {}
    for index, (name, t) in enumerate(tensors.items()):
        if index % 2:
            views[name] = t.mT.contiguous().mT
        else:
            views[name] = torch.stack([t, t], dim=-1)[..., 0]
        assert t.numel() == 1 or not views[name].is_contiguous() or min(t.shape) == 1
    return views


def name_case(case) -> str:
    """Return ``B3-K8-V6-N45`` for a tuple of sizes, and the name of a type."""
    if isinstance(case, torch.dtype):
        return str(case).removeprefix("torch.")
    if isinstance(case, tuple):
        names = "BKVNM"[: len(case)]
        return "-".join(f"{n}{size}" for n, size in zip(names, case, strict=True))
    return str(case)
