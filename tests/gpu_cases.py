"""Plugins whose ways on a GPU are tested, and how near they come to float64."""

import torch

import polynl_mm

# (registered name, arguments)
CASES = [
    ("PolyNL3d", {}),
    ("PolyNL3d", dict(schedule="direct")),
    ("PolyNL3d", dict(schedule="gram", bias=True)),
    ("PolyNL3d", dict(reduction=4, bias=True)),
    ("PolyNL3d", dict(heads=4)),
    ("PolyNL3d", dict(norm_cfg=dict(type="BN3d"))),
    ("PolyNL3d", dict(positions="sine", axes="time")),
    ("PolyNL3d", dict(axes="space")),
    ("PolyNL2d", dict(reduction=2)),
    *(
        ("NonLocalBlock3d", dict(mode=mode))
        for mode in ("embedded_gaussian", "gaussian", "dot_product", "concatenation")
    ),
    ("NonLocalBlock3d", dict(sub_sample=True)),
    ("NonLocalBlock3d", dict(mode="dot_product", sub_sample=True, axes="space")),
    ("NonLocalBlock2d", dict(mode="dot_product")),
    ("SpectralNL3d", {}),
    ("SpectralNL3d", dict(order=2, stable=True)),
    ("SpectralNL3d", dict(order=4, axes="space")),
    ("SpectralNL3d", dict(affinity="softmax", order=3)),
    ("SpectralNL3d", dict(affinity="whitened", use_scale=True, disentangled=True)),
    ("NonLocalStage3d", dict(num_units=2)),
    ("PyramidNL3d", {}),
    ("DoubleAttention3d", {}),
    ("EfficientAttention3d", dict(heads=2)),
    ("GlobalContext3d", dict(reduction=1)),
    ("GlobalContext3d", dict(pooling_type="avg", fusion_types=("channel_mul",))),
    ("CompactGeneralizedNL3d", dict(groups=2)),
    ("CompactGeneralizedNL3d", dict(groups=2, kernel="rbf", gamma=0.1)),
    ("CrissCross3d", {}),
    ("CrissCross2d", {}),
]
IDS = [
    "-".join([name, *(f"{k}={v}" for k, v in arguments.items())]).replace(" ", "")
    for name, arguments in CASES
]
# What is multiplied: relative to the largest, how far outputs and gradients may be.
PRECISIONS = {
    "float32": (2e-4, 1e-3),
    "tf32": (1e-2, 1e-1),
    "bfloat16": (6e-2, 3e-1),
    "float16": (1e-2, 1e-1),
}


def build(name, arguments):
    torch.manual_seed(0)
    plugin = getattr(polynl_mm, name)(32, zero_init=False, **arguments)
    for parameter in plugin.parameters():
        if parameter.dim() > 1:
            # mmcv's start values are too small to be seen. Large ones make a softmax
            # so sharp that rounding decides it.
            torch.nn.init.normal_(parameter, std=0.5 * parameter[0].numel() ** -0.5)
    shape = (2, 32, 6, 5) if name.endswith("2d") else (2, 32, 4, 6, 5)
    return plugin, torch.randn(shape) + 0.3


def run(plugin, x, compute=None):
    """Return what a plugin adds to x, and all gradients, on the CPU in float64."""
    x = x.detach().requires_grad_()
    y = (compute or plugin)(x)
    cotangent = torch.linspace(-1, 1, y.numel()).reshape(y.shape).to(y)
    leaves = [x, *plugin.parameters()]
    grads = torch.autograd.grad(y, leaves, cotangent, allow_unused=True)
    found = [(y - x).detach(), *grads]
    return [None if t is None else t.double().cpu() for t in found]


def names_of(plugin):
    return ["update", "gradient of x", *(n for n, _ in plugin.named_parameters())]


def assert_near(plugin, found, expected, precision):
    for_outputs, for_gradients = PRECISIONS[precision]
    scales = [t.abs().max().item() for t in expected if t is not None]
    for name, ours, theirs in zip(names_of(plugin), found, expected, strict=True):
        if theirs is None:
            continue
        assert ours.isfinite().all(), name
        bound = for_outputs if name == "update" else for_gradients
        # A gradient that is zero by symmetry is held to the largest of all.
        scale = max(theirs.abs().max().item(), 1e-2 * max(scales))
        error = (ours - theirs).abs().max().item() / scale
        assert error <= bound, f"{name}: {error:.1e} > {bound:.0e}"
