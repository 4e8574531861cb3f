"""Every plugin over time, with the options that change what it sums: what is shared."""

import torch
from torch import Tensor, nn

from polynl_mm.plugins import (
    CompactGeneralizedNL3d,
    CrissCross3d,
    DoubleAttention3d,
    EfficientAttention3d,
    GlobalContext3d,
    NonLocalBlock3d,
    NonLocalStage3d,
    Pointwise3d,
    PolyNL3d,
    PyramidNL3d,
    SpectralNL3d,
)

CHANNELS = 8
BN, GN = dict(type="BN3d"), dict(type="GN", num_groups=2)
_SINE = dict(positions="sine")
AXES = ("spacetime", "space", "time")
# Options by plugin; each is made with each of its axes.
OPTIONS = {
    PolyNL3d: [
        dict(schedule="direct"),
        dict(schedule="gram", bias=True, **_SINE),
        dict(schedule="gram", reduction=2, heads=2, norm_cfg=BN),
        dict(schedule="direct", norm_cfg=GN),
    ],
    NonLocalBlock3d: [
        dict(),
        dict(mode="gaussian", sub_sample=True),
        dict(mode="dot_product", **_SINE),
        dict(mode="dot_product", norm_cfg=BN),
        dict(mode="concatenation", norm_cfg=GN),
    ],
    SpectralNL3d: [
        dict(),
        dict(order=3, num_units=2, **_SINE),
        dict(order=2, stable=True, norm_cfg=GN),
        dict(order=2, affinity="softmax", use_scale=True),
        dict(affinity="whitened", disentangled=True),
    ],
    NonLocalStage3d: [dict(num_units=2, **_SINE)],
    DoubleAttention3d: [dict(), dict(norm_cfg=BN, **_SINE)],
    EfficientAttention3d: [dict(heads=2), dict(norm_cfg=GN, **_SINE)],
    GlobalContext3d: [
        dict(fusion_types=("channel_add", "channel_mul"), **_SINE),
        dict(pooling_type="avg", norm_cfg=BN),
    ],
    CompactGeneralizedNL3d: [
        dict(groups=2),
        dict(groups=2, kernel="rbf", scale=True, **_SINE),
        dict(groups=2, norm_cfg=BN),
    ],
    PyramidNL3d: [
        dict(),
        dict(share_key_query=True, key_query_norm_cfg=BN, joint_softmax=True, **_SINE),
    ],
    CrissCross3d: [dict(**_SINE)],
}
# What cannot be had with every axes.
ONLY = [
    (Pointwise3d, dict(norm_cfg=BN)),
    (
        NonLocalBlock3d,
        dict(mode="dot_product", sub_sample=True, pool_size=(2, 2, 2)),
    ),
    (NonLocalBlock3d, dict(temporal_groups=2, norm_cfg=BN, **_SINE)),
    (NonLocalBlock3d, dict(temporal_groups=4, axes="time")),
]


def cases() -> list[tuple[type, dict]]:
    """Return every plugin with every set of its options."""
    made = [
        (plugin, dict(given, axes=axes))
        for plugin, options in OPTIONS.items()
        for given in options
        for axes in AXES
        if not (given.get("sub_sample") and axes == "time")
    ]
    return made + ONLY


def build(plugin: type, options: dict, seed: int = 0) -> nn.Module:
    """Return a plugin in training, in float64, of which every weight has its part."""
    torch.manual_seed(seed)
    block = plugin(CHANNELS, **options).double()
    with torch.no_grad():
        for weight in block.parameters():
            weight.copy_(torch.randn_like(weight) * 0.5 + 0.1)
    return block.train()


def result(block: nn.Module, x: Tensor, compute) -> dict[str, Tensor]:
    """Return outputs, all gradients and all statistics, by name.

    Args:
        block (nn.Module): The plugin.
        x (Tensor): The whole clip.
        compute (Callable): (block, x) -> the whole output.

    Returns:
        dict[str, Tensor]: Of a loss that tells all positions apart.
    """
    x = x.detach().requires_grad_()
    y = compute(block, x)
    weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    (weight.cos() * y.square() + weight * y).sum().backward()
    found = {"output": y.detach(), "input": x.grad}
    found |= {f"gradient of {n}": p.grad for n, p in block.named_parameters()}
    return found | {n: b.clone() for n, b in block.named_buffers()}


def clip(frames: int) -> Tensor:
    """Return features of a clip, (2, C, frames, 4, 3)."""
    torch.manual_seed(frames)
    return torch.randn(2, CHANNELS, frames, 4, 3, dtype=torch.float64)


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Compare results to 1e-10 of each one's greatest number, and of 1 at least."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if value is None:
            assert found[name] is None, name
            continue
        scale = max(1.0, float(value.abs().max()))
        error = float((found[name] - value).abs().max())
        assert error < 1e-10 * scale, f"{name}: {error} of {scale}"
