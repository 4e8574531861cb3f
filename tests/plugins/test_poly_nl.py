"""PolyNL2d and PolyNL3d: the module around the operation."""

import pytest
import torch
from closeness import assert_close, assert_equal_to_reference
from mmcv.cnn import build_plugin_layer
from mmengine.registry import MODELS

from polynl_mm import PolyNL2d, PolyNL3d
from polynl_mm.ops import reference

SIZES = {PolyNL2d: (7, 5), PolyNL3d: (3, 7, 5)}


class ByReference(torch.nn.Module):
    """A plugin's weights in the paper's form, group of positions by group."""

    def __init__(self, plugin, axes):
        super().__init__()
        self.plugin, self.axes = plugin, axes

    def forward(self, x):
        weights = [
            layer.weight.flatten(1) if layer is not None else None
            for layer in (
                self.plugin.theta,
                self.plugin.phi,
                self.plugin.out,
                self.plugin.g,
            )
        ]
        flat = x if x.dim() == 5 else x.unsqueeze(2)  # (B, C, T, H, W)
        B, C, T, H, W = flat.shape
        groups = {
            "spacetime": lambda: flat.reshape(B, 1, C, T * H * W),
            "space": lambda: flat.permute(0, 2, 1, 3, 4).reshape(B, T, C, H * W),
            "time": lambda: flat.permute(0, 3, 4, 1, 2).reshape(B, H * W, C, T),
        }[self.axes]()
        y = torch.stack([reference.poly_nl(g, *weights) for g in groups.unbind(1)], 1)
        y = {
            "spacetime": lambda: y.reshape(B, C, T, H, W),
            "space": lambda: y.reshape(B, T, C, H, W).permute(0, 2, 1, 3, 4),
            "time": lambda: y.reshape(B, H, W, C, T).permute(0, 3, 4, 1, 2),
        }[self.axes]().reshape(x.shape)
        return self.plugin.alpha * y + self.plugin.beta * x


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("reduction", [1, 2, 4])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "one_position"])
@pytest.mark.parametrize(
    "kind, axes",
    [
        (PolyNL2d, "spacetime"),
        (PolyNL2d, "space"),
        (PolyNL3d, "spacetime"),
        (PolyNL3d, "space"),
        (PolyNL3d, "time"),
    ],
)
@pytest.mark.parametrize("schedule", ["direct", "gram"])
def test_equals_reference(kind, axes, layout, batch, reduction, dtype, schedule):
    torch.manual_seed(0)
    plugin = kind(
        12, reduction=reduction, axes=axes, schedule=schedule, zero_init=False
    ).to(dtype)
    torch.nn.init.constant_(plugin.beta, 0.7)
    positions = [1] * plugin.dims if layout == "one_position" else SIZES[kind]
    x = torch.randn(batch, 12, *positions, dtype=dtype)
    if layout == "channels_last":
        formats = {4: torch.channels_last, 5: torch.channels_last_3d}
        x = x.contiguous(memory_format=formats[x.dim()])
    parameters = dict(plugin.named_parameters())
    slow = ByReference(plugin, axes)

    def run(x, **parameters):
        return torch.func.functional_call(plugin, parameters, (x,))

    def run_reference(x, **parameters):
        named = {f"plugin.{name}": value for name, value in parameters.items()}
        return torch.func.functional_call(slow, named, (x,))

    assert_equal_to_reference(run, run_reference, {"x": x, **parameters})


@pytest.mark.parametrize("kind", [PolyNL2d, PolyNL3d])
@pytest.mark.parametrize("norm", [False, True])
def test_identity_at_the_start(kind, norm):
    norm_cfg = dict(type=f"BN{kind.dims}d") if norm else None
    plugin = kind(8, reduction=2, norm_cfg=norm_cfg)
    x = torch.randn(2, 8, *SIZES[kind])
    assert torch.equal(plugin(x), x)
    assert not torch.equal(kind(8, zero_init=False)(x), x)


def test_norm_acts_on_the_projection():
    plugin = PolyNL3d(8, norm_cfg=dict(type="BN3d"), zero_init=False)
    plain = PolyNL3d(8, zero_init=False)
    plain.load_state_dict(plugin.state_dict(), strict=False)
    x = torch.randn(2, 8, 3, 4, 5, dtype=torch.float32)
    y = plain(x) - x
    expected = (y - y.mean((0, 2, 3, 4), keepdim=True)) / (
        y.var((0, 2, 3, 4), correction=0, keepdim=True) + 1e-5
    ).sqrt()
    assert torch.allclose(plugin(x) - x, expected, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("schedule", ["direct", "gram"])
def test_autocast_keeps_type_and_stays_finite(dtype, schedule):
    plugin = PolyNL3d(16, schedule=schedule, zero_init=False)
    x = (torch.randn(1, 16, 10, 100, 100) * 30).requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        y = plugin(x)
    assert y.dtype == x.dtype
    y.mean().backward()
    assert y.isfinite().all() and x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in plugin.parameters())


def test_half_modules_run():
    plugin = PolyNL3d(8, reduction=2, zero_init=False).bfloat16()
    x = torch.randn(2, 8, 3, 4, 5).bfloat16()
    assert plugin(x).dtype == torch.bfloat16


def test_state_dict_carries_the_familys_names():
    keys = set(PolyNL3d(8, reduction=2).state_dict())
    layers = {f"{name}.weight" for name in ("theta", "phi", "g", "out")}
    assert keys == layers | {"alpha", "beta"}
    assert "g.weight" not in PolyNL3d(8).state_dict()


def test_schedules_share_weights_and_outputs():
    direct = PolyNL3d(16, schedule="direct", zero_init=False).double()
    gram = PolyNL3d(16, schedule="gram").double()
    gram.load_state_dict(direct.state_dict())
    x = torch.randn(2, 16, 3, 4, 5, dtype=torch.float64)
    assert_close(gram(x), direct(x), "gram")


def test_builds_in_every_openmmlab_way():
    assert isinstance(MODELS.build(dict(type="PolyNL3d", in_channels=8)), PolyNL3d)
    name, layer = build_plugin_layer(dict(type="PolyNL2d"), "1", in_channels=8)
    assert name == "poly_nl1" and isinstance(layer, PolyNL2d)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(in_channels=0), "in_channels is a whole number from 1, not 0"),
        (dict(in_channels=8, reduction=9), "reduction .* in_channels=8, not 9"),
        (dict(in_channels=8, axes="depth"), "axes is one of .*'time'.*not 'depth'"),
        (dict(in_channels=8, schedule="x"), "schedule is one of .*not 'x'"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=f"PolyNL3d: {message}"):
        PolyNL3d(**arguments)


def test_time_axis_needs_3d():
    with pytest.raises(ValueError, match="use PolyNL3d"):
        PolyNL2d(8, axes="time")


@pytest.mark.parametrize(
    "shape, message",
    [
        ((2, 8, 4, 4), r"\(B, C, T, H, W\), but got \(2, 8, 4, 4\)"),
        ((2, 6, 3, 4, 4), "in_channels=8, but got features of 6 channels"),
    ],
)
def test_bad_features_are_named(shape, message):
    with pytest.raises(ValueError, match=message):
        PolyNL3d(8)(torch.zeros(shape))
