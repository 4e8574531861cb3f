"""The blocks' published forms, restated for the tests of the plugins' options.

Each is a function of features, (B, C, *positions), and of a state dict's weights,
written from what the published modules compute and sharing nothing with the package.
All positions see one another.
"""

import torch
from torch.nn.functional import adaptive_avg_pool2d, adaptive_avg_pool3d, max_pool3d


def conv(weights, name, x):
    """A 1x1 convolution of (B, C, *positions), its bias where there is one."""
    weight = weights[f"{name}.weight"].flatten(1)
    y = torch.einsum("kc,bc...->bk...", weight, x)
    if f"{name}.bias" in weights:
        bias = weights[f"{name}.bias"]
        y = y + bias.reshape(-1, *(1,) * (x.dim() - 2))
    return y


def batch_norm(weights, name, x):
    """A batch norm in training: over the batch and all positions."""
    axes = (0, *range(2, x.dim()))
    mean = x.mean(axes, keepdim=True)
    variance = (x - mean).square().mean(axes, keepdim=True)
    shape = (1, -1, *(1,) * (x.dim() - 2))
    y = (x - mean) / (variance + 1e-5).sqrt()
    return y * weights[f"{name}.weight"].view(shape) + weights[f"{name}.bias"].view(
        shape
    )


def group_norm(weights, name, x, groups):
    """Of each sample, over equal groups of channels and all positions."""
    parts = x.reshape(x.shape[0], groups, -1)
    mean = parts.mean(2, keepdim=True)
    variance = (parts - mean).square().mean(2, keepdim=True)
    y = ((parts - mean) / (variance + 1e-5).sqrt()).reshape(x.shape)
    shape = (1, -1, *(1,) * (x.dim() - 2))
    return y * weights[f"{name}.weight"].view(shape) + weights[f"{name}.bias"].view(
        shape
    )


def layer_norm(weights, name, x):
    """Over the last axis."""
    mean = x.mean(-1, keepdim=True)
    variance = (x - mean).square().mean(-1, keepdim=True)
    y = (x - mean) / (variance + 1e-5).sqrt()
    return y * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def pyslowfast_non_local(w, x, *, mode, pool, groups, norm):
    """PySlowFast's Nonlocal and its NONLOCAL.GROUP; B, C, T, H, W."""
    B, C, T, H, W = x.shape
    parts = []
    for part in x.reshape(B, C, groups, T // groups, H, W).unbind(2):
        seen = max_pool3d(part, pool) if max(pool) > 1 else part
        theta = conv(w, "theta.conv", part).flatten(2)
        phi = conv(w, "phi.conv", seen).flatten(2)
        g = conv(w, "g.conv", seen).flatten(2)
        affinity = torch.einsum("bkn,bkm->bnm", theta, phi)
        if mode == "dot_product":
            affinity = affinity / phi.shape[2]
        else:
            affinity = torch.softmax(affinity * theta.shape[1] ** -0.5, dim=2)
        y = torch.einsum("bnm,bvm->bvn", affinity, g)
        parts.append(conv(w, "conv_out.conv", y.reshape(B, -1, *part.shape[2:])))
    # Its groups are samples of one batch when the norm sees them.
    y = torch.cat(parts)
    y = batch_norm(w, "conv_out.bn", y) if norm else y
    return x + torch.stack(y.chunk(groups), 2).reshape(x.shape)


def context_block(w, x, *, pooling_type, fusion_types):
    """GCNet's ContextBlock, as in mmcv."""
    features = x.flatten(2)
    if pooling_type == "att":
        share = torch.softmax(conv(w, "phi", features), dim=2)
    else:
        share = torch.full_like(features[:, :1], 1 / features.shape[2])
    context = (features * share).sum(2)  # (B, C)

    def transform(prefix):
        y = torch.relu(
            layer_norm(w, f"{prefix}layer_norm", conv(w, f"{prefix}g", context))
        )
        return conv(w, f"{prefix}out", y).reshape(*x.shape[:2], *(1,) * (x.dim() - 2))

    y = x
    if "channel_mul" in fusion_types:
        y = y * torch.sigmoid(transform("multiplier."))
    if "channel_add" in fusion_types:
        y = y + transform("")
    return y


def efficient_attention(w, x, *, heads):
    """Efficient attention; with one head the double attention of the A2-Nets."""
    queries, keys, values = (
        conv(w, name, x).flatten(2).chunk(heads, dim=1)
        for name in ("theta", "phi", "g")
    )
    attended = []
    for query, key, value in zip(queries, keys, values, strict=True):
        context = torch.einsum("bkm,bvm->bkv", torch.softmax(key, dim=2), value)
        attended.append(
            torch.einsum("bkv,bkn->bvn", context, torch.softmax(query, dim=1))
        )
    return x + conv(
        w, "out", torch.cat(attended, dim=1).reshape(len(x), -1, *x.shape[2:])
    )


def cgnl(w, x, *, groups, norm):
    """CGNL with the dot product; ``norm(weights, name, y)`` stands behind it."""
    theta, phi, g = (conv(w, name, x) for name in ("theta", "phi", "g"))
    split = (t.flatten(2).chunk(groups, dim=1) for t in (theta, phi, g))
    parts = [
        t * (p * v).sum((1, 2), keepdim=True) for t, p, v in zip(*split, strict=True)
    ]
    rows = w["out.weight"].flatten(1).chunk(groups)
    mixed = [row @ part for row, part in zip(rows, parts, strict=True)]
    return x + norm(w, "norm", torch.cat(mixed, dim=1).reshape(x.shape))


def row_softmax(w, x, whiten=False, divisor=1.0):
    """(B, N, N), its rows sum to one."""
    theta, phi = (conv(w, name, x).flatten(2) for name in ("theta", "phi"))
    if whiten:
        theta, phi = (t - t.mean(2, keepdim=True) for t in (theta, phi))
    return torch.softmax(torch.einsum("bkn,bkm->bnm", theta, phi) / divisor, dim=2)


def gsnl_2019(w, x, *, units, relu):
    """The gSNL stage of its authors' 2019 repository: terms g, A g and (2A - I) g."""
    affinity = row_softmax(w, x)
    for unit in range(units):
        g = conv(w, f"g.{unit}", x).flatten(2).transpose(1, 2)  # (B, N, V)
        identity = torch.eye(g.shape[1], dtype=x.dtype)
        y = 0
        for term, operator in enumerate((identity, affinity, 2 * affinity - identity)):
            y = y + conv(w, f"out.{unit}.{term}", (operator @ g).transpose(1, 2))
        y = batch_norm(w, f"norm.{unit}", y.reshape(x.shape))
        x = x + (torch.relu(y) if relu else y)
    return x


def dnl(w, x, *, units, whiten, divisor, relu):
    """The disentangled block: of its paper whitened, of the SNL authors' code not."""
    affinity = row_softmax(w, x, whiten, divisor)
    for unit in range(units):
        g = conv(w, f"g.{unit}", x).flatten(2)
        mask = torch.softmax(conv(w, f"mask.{unit}", x).flatten(2), dim=2)
        y = g @ affinity.transpose(1, 2) + (g * mask).sum(2, keepdim=True)
        y = conv(w, f"out.{unit}.0", y).reshape(x.shape)
        y = batch_norm(w, f"norm.{unit}", y)
        x = x + (torch.relu(y) if relu else y)
    return x


def apnb(w, x, *, grids, norm):
    """APNB's attention, and the residual that the plugins have."""
    pool = {4: adaptive_avg_pool2d, 5: adaptive_avg_pool3d}[x.dim()]

    def pyramid(features):
        return torch.cat([pool(features, tuple(g)).flatten(2) for g in grids], dim=2)

    query = conv(w, "theta", x)
    if norm:
        query = torch.relu(batch_norm(w, "theta_norm", query))
    key, value = pyramid(query), pyramid(conv(w, "g", x))
    logits = torch.einsum("bkn,bks->bns", query.flatten(2), key)
    share = torch.softmax(logits * key.shape[1] ** -0.5, dim=2)
    y = torch.einsum("bns,bvs->bvn", share, value)
    return x + conv(w, "out", y.reshape(len(x), -1, *x.shape[2:]))


def poly_nl(w, x):
    """Poly-NL, with a bias wherever the weights have one."""
    theta, phi = (conv(w, name, x).flatten(2) for name in ("theta", "phi"))
    gate = (theta * phi).mean(2).reshape(len(x), -1, *(1,) * (x.dim() - 2))
    value = conv(w, "g", x) if "g.weight" in w else x
    return w["alpha"] * conv(w, "out", gate * value) + w["beta"] * x


def poly_sa(w, x, *, heads):
    """Poly-SA's attention with 1 for p1 and 1/N for p2, and Poly-NL's residual."""
    k, v, q = (
        conv(w, name, x).flatten(2).transpose(1, 2) for name in ("theta", "phi", "g")
    )  # (B, N, K)
    B, N, K = k.shape
    by_head = (k * v).reshape(B, N, heads, K // heads)
    p2 = torch.full((heads, N), 1 / N, dtype=x.dtype)
    modulator = torch.einsum("hn,bnhd->bhd", p2, by_head)
    modulator = layer_norm(w, "moment_norm", modulator).reshape(B, 1, K)
    y = (q * modulator).transpose(1, 2).reshape(B, K, *x.shape[2:])
    return w["alpha"] * conv(w, "out", y) + w["beta"] * x
