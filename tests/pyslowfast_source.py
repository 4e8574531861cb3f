"""A network whose state dict has PySlowFast's layout, for the converter's test.

Written for the test, after PySlowFast's published key names and what each layer does.
"""

import torch
from torch import nn


def norm(channels):
    return nn.BatchNorm3d(channels)


class NonLocal(nn.Module):
    def __init__(self, channels, mode, pool, norm_name, groups):
        super().__init__()
        inner = channels // 2
        self.mode, self.norm_name, self.groups = mode, norm_name, groups
        self.pool = nn.MaxPool3d(pool, pool) if pool else nn.Identity()
        self.conv_theta = nn.Conv3d(channels, inner, 1)
        self.conv_phi = nn.Conv3d(channels, inner, 1)
        self.conv_g = nn.Conv3d(channels, inner, 1)
        self.conv_out = nn.Conv3d(inner, channels, 1)
        if norm_name:
            self.add_module(norm_name, norm(channels))

    def forward(self, x):
        """Each group of frames is a clip of its own."""
        parts = x.chunk(self.groups, dim=2)
        return torch.cat([self.apply_to(part) for part in parts], dim=2)

    def apply_to(self, x):
        seen = self.pool(x)
        theta = self.conv_theta(x).flatten(2)
        phi, g = self.conv_phi(seen).flatten(2), self.conv_g(seen).flatten(2)
        affinity = theta.transpose(1, 2) @ phi  # (B, N, M)
        if self.mode == "softmax":
            affinity = (affinity / theta.shape[1] ** 0.5).softmax(dim=2)
        else:
            affinity = affinity / phi.shape[2]
        y = (g @ affinity.transpose(1, 2)).unflatten(2, x.shape[2:])
        y = self.conv_out(y)
        return x + (getattr(self, self.norm_name)(y) if self.norm_name else y)


class Transform(nn.Module):
    def __init__(self, channels, inner, out, temporal, stride):
        super().__init__()
        pad = temporal // 2
        self.a = nn.Conv3d(
            channels, inner, (temporal, 1, 1), padding=(pad, 0, 0), bias=False
        )
        self.a_bn = norm(inner)
        self.b = nn.Conv3d(
            inner, inner, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False
        )
        self.b_bn = norm(inner)
        self.c = nn.Conv3d(inner, out, 1, bias=False)
        self.c_bn = norm(out)

    def forward(self, x):
        x = self.a_bn(self.a(x)).relu()
        x = self.b_bn(self.b(x)).relu()
        return self.c_bn(self.c(x))


class Block(nn.Module):
    def __init__(self, channels, inner, out, temporal, stride):
        super().__init__()
        if channels != out or stride != 1:
            self.branch1 = nn.Conv3d(channels, out, 1, (1, stride, stride), bias=False)
            self.branch1_bn = norm(out)
        self.branch2 = Transform(channels, inner, out, temporal, stride)

    def forward(self, x):
        short = self.branch1_bn(self.branch1(x)) if hasattr(self, "branch1") else x
        return (short + self.branch2(x)).relu()


class Stage(nn.Module):
    """One stage of every pathway."""

    def __init__(self, channels, inner, out, temporal, stride, non_local, places):
        super().__init__()
        for p, kernels in enumerate(temporal):
            for i, kernel in enumerate(kernels):
                first = i == 0
                block = Block(
                    channels[p] if first else out[p],
                    inner[p],
                    out[p],
                    kernel,
                    stride if first else 1,
                )
                self.add_module(f"pathway{p}_res{i}", block)
                if i in places[p]:
                    block = NonLocal(out[p], *non_local)
                    self.add_module(f"pathway{p}_nonlocal{i}", block)

    def forward(self, features):
        features = list(features)
        for name, module in self.named_children():
            index = int(name[len("pathway")])
            features[index] = module(features[index])
        return features


class Stem(nn.Module):
    def __init__(self, channels, temporal):
        super().__init__()
        self.conv = nn.Conv3d(
            3, channels, (temporal, 7, 7), (1, 2, 2), (temporal // 2, 3, 3), bias=False
        )
        self.bn = norm(channels)
        self.pool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))

    def forward(self, x):
        return self.pool(self.bn(self.conv(x)).relu())


class Fuse(nn.Module):
    def __init__(self, channels, alpha, kernel):
        super().__init__()
        self.conv_f2s = nn.Conv3d(
            channels,
            2 * channels,
            (kernel, 1, 1),
            (alpha, 1, 1),
            (kernel // 2, 0, 0),
            bias=False,
        )
        self.bn = norm(2 * channels)

    def forward(self, features):
        slow, fast = features
        return [torch.cat([slow, self.bn(self.conv_f2s(fast)).relu()], 1), fast]


class Head(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.projection = nn.Linear(channels, classes)

    def forward(self, features):
        pooled = torch.cat([f.mean(dim=(2, 3, 4)) for f in features], dim=1)
        return self.projection(pooled)


class PySlowFast(nn.Module):
    """Logits of a list of one clip for each pathway.

    ``temporal`` has, for the stem and four stages, the kernels of each pathway.
    """

    def __init__(
        self,
        temporal,
        widths=(8,),
        places=((), (), (), ()),
        mode="softmax",
        pool=None,
        norm_name="bn",
        groups=1,
        pool_time=False,
        alpha=4,
        fusion_kernel=5,
        classes=5,
    ):
        super().__init__()
        two = len(widths) == 2
        self.pool_time = pool_time
        self.s1 = nn.Module()
        for p, width in enumerate(widths):
            self.s1.add_module(f"pathway{p}_stem", Stem(width, temporal[0][p]))
        channels = list(widths)
        for stage in range(4):
            if two:
                fuse = Fuse(channels[1], alpha, fusion_kernel)
                self.add_module(f"s{stage + 1}_fuse", fuse)
                channels[0] += 2 * channels[1]
            inner = [width * 2**stage for width in widths]
            out = [4 * width for width in inner]
            built = Stage(
                channels,
                inner,
                out,
                temporal[stage + 1],
                1 if stage == 0 else 2,
                (mode, pool, norm_name, groups),
                [places[stage], ()],
            )
            self.add_module(f"s{stage + 2}", built)
            channels = out
        self.head = Head(sum(channels), classes)

    def forward(self, clips):
        stems = [getattr(self.s1, f"pathway{p}_stem") for p in range(len(clips))]
        features = [stem(clip) for stem, clip in zip(stems, clips, strict=True)]
        for stage in range(4):
            if hasattr(self, f"s{stage + 1}_fuse"):
                features = getattr(self, f"s{stage + 1}_fuse")(features)
            features = getattr(self, f"s{stage + 2}")(features)
            if stage == 0 and self.pool_time:
                features = [nn.functional.max_pool3d(f, (2, 1, 1)) for f in features]
        return self.head(features)


def randomize(model, seed=0):
    """Give every weight and statistic a value at which no layer is silent."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5, generator=generator)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(std=0.2, generator=generator)
        elif isinstance(module, nn.Conv3d | nn.Linear):
            fan_in = module.weight[0].numel()
            module.weight.data.normal_(std=0.7 * fan_in**-0.5, generator=generator)
            if module.bias is not None:
                module.bias.data.normal_(std=0.5, generator=generator)
    return model.eval()
