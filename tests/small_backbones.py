"""The ten backbones that WithPlugins is promised for, small enough for tests."""

from copy import deepcopy

import torch.nn as nn
from mmengine.registry import init_default_scope

VIDEO = (1, 3, 8, 32, 32)
FRAMES = (8, 3, 32, 32)
FIVE = dict(stages=(False, True, True, False), blocks="alternate")

_RESNET_3D = dict(depth=50, base_channels=8, pretrained=None)
_PATHWAY = dict(
    type="resnet3d", depth=50, pretrained=None, conv1_stride_t=1, pool1_stride_t=1
)

# name: (arguments, input shape, where the plugin goes)
BACKBONES = {
    "ResNet3d": (dict(_RESNET_3D, pretrained2d=False), VIDEO, FIVE),
    "ResNet3dSlowOnly": (dict(_RESNET_3D), VIDEO, FIVE),
    "ResNet3dSlowFast": (
        dict(
            pretrained=None,
            resample_rate=4,
            speed_ratio=4,
            channel_ratio=2,
            slow_pathway=dict(
                _PATHWAY,
                lateral=True,
                base_channels=16,
                conv1_kernel=(1, 7, 7),
                dilations=(1, 1, 1, 1),
                inflate=(0, 0, 1, 1),
            ),
            fast_pathway=dict(
                _PATHWAY, lateral=False, base_channels=8, conv1_kernel=(5, 7, 7)
            ),
        ),
        (1, 3, 16, 32, 32),
        dict(FIVE, pathway="both"),
    ),
    "ResNet3dCSN": (
        dict(_RESNET_3D, pretrained2d=False, with_pool2=False, bottleneck_mode="ir"),
        VIDEO,
        FIVE,
    ),
    "ResNet2Plus1d": (
        dict(
            depth=34,
            base_channels=8,
            pretrained=None,
            pretrained2d=False,
            conv_cfg=dict(type="Conv2plus1d"),
            conv1_kernel=(3, 7, 7),
            pool1_stride_t=1,
        ),
        VIDEO,
        FIVE,
    ),
    # Half the frames: C2D pools over time by 2 after its first stage.
    "C2D": (dict(depth=50, pretrained=None), VIDEO, dict(FIVE, num_segments=4)),
    "X3D": (
        dict(gamma_w=1, gamma_b=2.25, gamma_d=1.0),
        VIDEO,
        dict(at=["layer2.0", "layer3.1", "layer4"]),
    ),
    "ResNet": (dict(depth=50, pretrained=None), FRAMES, dict(FIVE, num_segments=8)),
    "ResNetTSM": (
        dict(depth=50, pretrained=None, pretrained2d=False),
        FRAMES,
        dict(FIVE, num_segments=8),
    ),
    "MobileNetV2TSM": (
        dict(pretrained=None, pretrained2d=False),
        FRAMES,
        dict(at=["layer3.0", "layer5"], num_segments=8),
    ),
}


def build(name, plugins=None, **changes):
    """Build one of the backbones, with or without plugins, through the registry."""
    init_default_scope("mmaction")
    from mmaction.registry import MODELS

    arguments = dict(deepcopy(BACKBONES[name][0]), **changes)
    if plugins is None:
        return MODELS.build(dict(type=name, **arguments))
    return MODELS.build(dict(type="WithPlugins", of=name, plugins=plugins, **arguments))


class OutsideNetwork(nn.Module):
    """A network that knows nothing of OpenMMLab."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv3d(3, 8, 3, padding=1), nn.ReLU())
        self.body = nn.Conv3d(8, 16, 1)

    def forward(self, x):
        return self.body(self.stem(x))
