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

# As I3D, whose frames become an eighth.
CHANGES = {"ResNet3d": dict(conv1_stride_t=2, pool1_stride_t=2)}
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
    return x.narrow(axis, start, end - start).contiguous()


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
        own = own.flatten(0, 1).contiguous()
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


def backbone(share, name: str, plugins=None, own=False, **changes) -> float:
    """Compare one of the small backbones, with plugins or its own non-local blocks."""
    torch.manual_seed(0)
    plugins = plugins and dict(BACKBONES[name][2], cfg=plugins)
    changes |= CHANGES.get(name, {})
    if own:
        changes |= dict(
            non_local=((0, 0, 0), (0, 0, 0, 1), (0,) * 6, (0, 0, 0)),
            non_local_cfg=dict(mode="embedded_gaussian", norm_cfg=dict(type="BN3d")),
        )
    network = wake(build(name, plugins, **changes))
    shape = BACKBONES[name][1]
    if len(shape) == 4:
        x = torch.randn(2, *shape, dtype=torch.double)  # (B, T, C, H, W)
        return difference(network, x, share, 1)
    frames = LENGTHS.get(name, shape[TIME])
    x = torch.randn(2, 3, frames, *shape[3:], dtype=torch.double)
    return difference(network, x, share)


def layers(share) -> float:
    """Compare every kind of temporal kernel, alone: worst of them."""
    torch.manual_seed(0)  # the same weights on all ranks
    worst = 0.0
    for kernel, stride, dilation, padding in (
        (3, 1, 1, 1), (3, 2, 1, 1), (5, 1, 1, 2), (5, 2, 1, 2), (5, 4, 1, 2),
        (2, 2, 1, 0), (1, 2, 1, 0), (3, 1, 3, 3), (7, 4, 1, 3), (4, 4, 1, 0),
        (8, 8, 1, 3), (13, 1, 1, 6), (3, 1, 1, "same"), (4, 1, 1, "same"),
    ):  # fmt: skip
        spaces = padding if isinstance(padding, str) else (padding, 1, 0)
        given = dict(stride=(stride, 2, 1), dilation=(dilation, 1, 1))
        if padding == "same":
            given["stride"] = 1
        kinds = [
            nn.Conv3d(4, 6, (kernel, 3, 2), padding=spaces, groups=2, **given),
            nn.Conv3d(4, 6, (kernel, 3, 2), padding=spaces, bias=False, **given),
        ]
        if padding != "same" and 2 * padding <= kernel:
            pooling = dict(kernel_size=(kernel, 3, 2), padding=spaces)
            kinds += [nn.MaxPool3d(**pooling, **given)]
            if dilation == 1:
                kinds += [nn.AvgPool3d(**pooling, stride=given["stride"])]
        for layer in kinds:
            network = nn.Sequential(nn.Conv3d(3, 4, 1), layer)
            worst = max(worst, _small(network, share))
    return worst


def norms_and_global_pools(share) -> float:
    """Compare what looks at whole clips: worst of them."""
    torch.manual_seed(0)
    return max(
        _small(nn.Sequential(nn.Conv3d(3, 4, 1), layer, nn.Tanh()), share)
        for layer in (
            nn.BatchNorm3d(4),
            nn.BatchNorm3d(4, affine=False),
            nn.BatchNorm3d(4, momentum=None, track_running_stats=False),
            nn.BatchNorm3d(4).requires_grad_(False),
            nn.GroupNorm(2, 4),
            nn.InstanceNorm3d(4, affine=True),
            nn.AdaptiveAvgPool3d(1),
            nn.AdaptiveAvgPool3d((8, 2, 1)),
            nn.AdaptiveMaxPool3d((1, 1, 1)),
        )
    )


def _small(network: nn.Module, share) -> float:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 32, 5, 4, dtype=torch.double)
    return difference(wake(network), x, share)


class _Recognizer(nn.Module):
    """A recognizer's loss."""

    framewise = True  # but for what is in it

    def __init__(self, model: dict):
        super().__init__()
        from mmaction.registry import MODELS

        self.model = MODELS.build(model)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        from mmaction.structures import ActionDataSample

        samples = [ActionDataSample().set_gt_label(i) for i in range(len(x))]
        torch.manual_seed(11)  # as a group's ranks are at each step
        return self.model(x, samples, mode="loss")["loss_cls"].view(1, 1)


def recognizer(share, backbone: dict, head: dict, shape: tuple, axis: int) -> float:
    """Compare a whole recognizer, its head's dropout included: losses, gradients."""
    from mmengine.registry import init_default_scope

    init_default_scope("mmaction")
    kind = "Recognizer2D" if axis == 1 else "Recognizer3D"
    head = dict(num_classes=3, dropout_ratio=0.5, **head)
    torch.manual_seed(0)
    network = wake(_Recognizer(dict(type=kind, backbone=backbone, cls_head=head)))
    x = torch.randn(2, *shape, dtype=torch.double)
    alone = copy.deepcopy(network)

    def run(network, x):
        loss = network(x)
        loss.sum().backward()
        return [loss.detach(), *(p.grad for p in network.parameters())]

    with sharing(share), clip_parallel_network(network, share.count):
        found = run(network, own_part(x, share, axis))
    for grad in found[1:]:
        dist.all_reduce(grad)
        grad /= share.count
    if share.index:
        return 0.0
    expected = run(alone, x)
    return max(
        float((f - e).abs().max() / e.abs().max().clamp_min(1e-12))
        for f, e in zip(found, expected, strict=True)
    )


def _small_backbone(name: str) -> dict:
    return dict(type=name, **copy.deepcopy(BACKBONES[name][0]))


RECOGNIZERS = {
    "I3DHead": (
        _small_backbone("ResNet3dSlowOnly"),
        dict(type="I3DHead", in_channels=256),
        (1, 3, 8, 32, 32),
        3,
    ),
    "SlowFastHead": (
        _small_backbone("ResNet3dSlowFast"),
        dict(type="SlowFastHead", in_channels=768),
        (1, 3, 16, 32, 32),
        3,
    ),
    "X3DHead": (
        _small_backbone("X3D"),
        dict(type="X3DHead", in_channels=432, spatial_type="max"),
        (1, 3, 8, 32, 32),
        3,
    ),
    "TSNHead": (
        dict(type="ResNet", depth=18, pretrained=None),
        dict(type="TSNHead", in_channels=512),
        (8, 3, 32, 32),
        1,
    ),
    "TSMHead": (
        dict(
            type="ResNetTSM",
            depth=18,
            pretrained=None,
            pretrained2d=False,
            temporal_pool=True,
        ),
        dict(type="TSMHead", in_channels=512, temporal_pool=True),
        (8, 3, 32, 32),
        1,
    ),
}
POLY_NL = dict(type="PolyNL3d", norm_cfg=dict(type="BN3d"))
CASES = {n: functools.partial(backbone, name=n, plugins=POLY_NL) for n in BACKBONES}
PLUGIN_CASES = {}
CASES["ResNet3dSlowOnly-checkpointing"] = functools.partial(
    backbone, name="ResNet3dSlowOnly", plugins=POLY_NL, with_cp=True
)
CASES["ResNetTSM-own"] = functools.partial(backbone, name="ResNetTSM", own=True)
CASES["ResNet3d-own"] = functools.partial(backbone, name="ResNet3d", own=True)
# Every plugin, one of each kind in a network.
MODES = [
    dict(type="PolyNL3d", axes="time", reduction=2),
    dict(type="PolyNL3d", axes="space", heads=2, reduction=2),
    dict(type="PolyNL3d", positions="sine"),
    dict(type="NonLocalBlock3d", mode="dot_product", norm_cfg=dict(type="BN3d")),
    dict(type="NonLocalBlock3d", mode="embedded_gaussian", sub_sample=True),
    dict(type="NonLocalBlock3d", mode="concatenation"),
    dict(type="SpectralNL3d"),
    dict(type="NonLocalStage3d"),
    dict(type="DoubleAttention3d"),
    dict(type="CompactGeneralizedNL3d"),
    dict(type="GlobalContext3d"),
    dict(type="EfficientAttention3d"),
    dict(type="PyramidNL3d"),
    dict(type="CrissCross3d"),
    dict(type="SpectralNL3d", axes="space"),
]
for body in ("ResNet3d", "ResNet3dSlowFast"):
    for index, cfg in enumerate(MODES):
        kind = f"{body}-{cfg['type']}{index}"
        PLUGIN_CASES[kind] = functools.partial(backbone, name=body, plugins=cfg)
CASES |= {"layers": layers, "norms_and_global_pools": norms_and_global_pools}
CASES |= {
    name: functools.partial(
        recognizer, backbone=body, head=head, shape=shape, axis=axis
    )
    for name, (body, head, shape, axis) in RECOGNIZERS.items()
}
