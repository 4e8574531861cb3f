"""positions='sine': what a block reads has a place, what it passes on has none."""

import pytest
import torch
from closeness import assert_close

import polynl_mm
from polynl_mm.plugins.position_encoding import SinePositions

KINDS = sorted({name[:-2] for name in polynl_mm.__all__ if name.endswith("3d")})
KINDS = [kind for kind in KINDS if hasattr(polynl_mm, f"{kind}3d")]
EVEN_ODD = [(4, 6, 5), (7, 4, 4), (1, 5, 5)]


def build(kind, dims=3, channels=16, **options):
    torch.manual_seed(0)
    plugin = getattr(polynl_mm, f"{kind}{dims}d")(
        channels, positions="sine", zero_init=False, **options
    )
    return plugin.double()


def without(plugin, kind, **options):
    """Return the same weights without the option."""
    plain = getattr(polynl_mm, f"{kind}3d")(16, zero_init=False, **options).double()
    state = plugin.state_dict()
    plain.load_state_dict(
        {k: v for k, v in state.items() if not k.startswith("position_encoding")}
    )
    return plain


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axes", ["spacetime", "time", "space"])
def test_reads_places_and_updates_features(kind, axes):
    """What is added to x is what the plain block would add to x + encoding."""
    plugin = build(kind, axes=axes)
    plain = without(plugin, kind, axes=axes)
    x = torch.randn(2, 16, 4, 4, 6, dtype=torch.float64)
    placed = plugin.placed(x)
    assert not torch.equal(placed, x)
    assert_close(plugin(x) - x, plain(placed) - placed, "y")


@pytest.mark.parametrize("kind", KINDS)
def test_starts_as_the_identity(kind):
    plugin = getattr(polynl_mm, f"{kind}3d")(16, positions="sine")
    x = torch.randn(2, 16, 4, 5, 6)
    assert torch.equal(plugin(x), x)


@pytest.mark.parametrize("kind", KINDS)
def test_the_encoding_is_learned(kind):
    plugin = build(kind, axes="time")
    x = torch.randn(2, 16, 4, 3, 4, dtype=torch.float64)
    plugin(x).square().sum().backward()
    grad = plugin.position_encoding.weight.grad
    assert grad.isfinite().all() and grad.abs().max() > 1e-8


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", EVEN_ODD)
def test_takes_clips_of_any_length(kind, shape):
    plugin = build(kind)
    x = torch.randn(1, 16, *shape, dtype=torch.float64)
    assert plugin(x).shape == x.shape


@pytest.mark.parametrize("kind", ["PolyNL", "NonLocalBlock", "SpectralNL"])
def test_order_is_seen(kind):
    """Without places, shuffled frames give the clip's result, shuffled alike."""
    x = torch.randn(1, 16, 5, 3, 3, dtype=torch.float64)
    shuffle = torch.tensor([3, 1, 4, 0, 2])
    plugin = build(kind, axes="time")
    plain = without(plugin, kind, axes="time")
    assert_close(plain(x[:, :, shuffle]), plain(x)[:, :, shuffle], "y")
    assert (plugin(x[:, :, shuffle]) - plugin(x)[:, :, shuffle]).abs().max() > 1e-6


@pytest.mark.parametrize("schedule", ["direct", "gram"])
@pytest.mark.parametrize("reduction", [1, 4])
def test_schedules_of_poly_nl_agree(schedule, reduction):
    x = torch.randn(2, 16, 4, 5, 6, dtype=torch.float64, requires_grad=True)
    options = dict(reduction=reduction, bias=True)
    results = []
    for name in (schedule, "auto"):
        plugin = build("PolyNL", schedule=name, **options)
        y = plugin(x)
        grads = torch.autograd.grad(y.sin().sum(), [x, *plugin.parameters()])
        results.append([y, *grads])
    for ours, theirs in zip(*results, strict=True):
        assert_close(ours, theirs, "y")


def test_covers_any_length_alike():
    """The first and the last place of an axis are the same in long and short clips."""
    encoding = SinePositions(8, 3, (0,)).double()
    long, short = (
        encoding(torch.zeros(1, 8, length, 1, 1, dtype=torch.float64))
        for length in (64, 16)
    )
    pooled = long.reshape(1, 8, 16, 4).mean(3)
    worst = (pooled - short.reshape(1, 8, 16)).abs().max()
    assert worst < 0.05 * short.abs().max()


def test_tells_apart_the_axes_that_see_one_another():
    x = torch.zeros(1, 16, 4, 5, 6)
    for axes, shape in {
        "spacetime": (4, 5, 6),
        "space": (1, 5, 6),
        "time": (4, 1, 1),
    }.items():
        plugin = polynl_mm.PolyNL3d(16, axes=axes, positions="sine")
        assert plugin.position_encoding(x).shape == (1, 16, *shape)
    assert polynl_mm.PolyNL2d(16, positions="sine")(x[:, :, 0]).shape == (1, 16, 5, 6)


def test_has_unit_variance_at_the_start():
    torch.manual_seed(0)
    encoding = SinePositions(4096, 3, (0, 1, 2))(torch.zeros(1, 4096, 4, 5, 6))
    assert 0.8 < encoding.var() < 1.2


@pytest.mark.parametrize("kind", KINDS)
def test_refuses_other_encodings(kind):
    with pytest.raises(ValueError, match=rf"{kind}3d: positions is None or one of"):
        getattr(polynl_mm, f"{kind}3d")(16, positions="learned")
