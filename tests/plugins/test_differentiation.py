"""Every way in which torch differentiates or batches: each plugin goes with all."""

import gc
import weakref

import pytest
import torch
from explained_plugins import CASES, make
from pretended_gpu import pretended_gpu
from torch import nn
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

from polynl_mm import GlobalContext3d
from polynl_mm.ops import fused_attention, pairwise

# Half types go other ways than wide ones.
DTYPES = [torch.float64, torch.bfloat16, torch.float16]
EXTRA = {
    "gaussian_at_once": ("NonLocalBlock", dict(mode="gaussian")),
    "embedded_at_once": ("NonLocalBlock", {}),
    "poly_nl_quarter": ("PolyNL", dict(reduction=4)),
    "poly_nl_direct": ("PolyNL", dict(schedule="direct", reduction=4)),
    "poly_nl_gram": ("PolyNL", dict(schedule="gram", reduction=2)),
}
ALL = {**CASES, **EXTRA}


@pytest.fixture(params=ALL)
def plugin(request, monkeypatch):
    """A plugin that is not the identity, whose softmaxes take one or several chunks."""
    if request.param not in EXTRA:
        monkeypatch.setattr(pairwise, "_CHUNK", 100)
    kind, arguments = ALL[request.param]
    return make(kind, 3, **arguments)


def clip(dtype=torch.float64, shape=(2, 8, 4, 5, 3)):
    torch.manual_seed(1)
    return torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_()


def penalty(plugin, x):
    """The square of the gradient, as WGAN-GP adds it to a loss."""
    (of_x,) = torch.autograd.grad(plugin(x).square().sum(), x, create_graph=True)
    return of_x.square().sum()


def gradients(loss, plugin, x):
    wanted = [x, *plugin.parameters()]
    return torch.autograd.grad(loss, wanted, allow_unused=True)


def equal(found, expected, tolerance=1e-9):
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            error = (one.double() - other.double()).abs().max()
            assert error <= tolerance * other.double().abs().max().clamp(min=1e-3)


@pytest.mark.parametrize("where", ["saved on the CPU", "checkpoint"])
def test_gradient_penalty_under_hooks_on_saved_tensors(plugin, where):
    x = clip()
    expected = gradients(penalty(plugin, x), plugin, x)
    if where == "checkpoint":
        loss = checkpoint(penalty, plugin, x, use_reentrant=False)
        found = gradients(loss, plugin, x)
    else:
        with torch.autograd.graph.save_on_cpu():
            found = gradients(penalty(plugin, x), plugin, x)
    equal(found, expected)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize(
    ("dtype", "again"),
    [*((dtype, False) for dtype in DTYPES), (torch.float64, True)],
    ids=str,
)
def test_batched_gradients(plugin, dtype, again):
    """By the older vmap, which autograd goes by still."""
    if again and any(isinstance(m, nn.GroupNorm) for m in plugin.modules()):
        pytest.skip("torch has no batched second derivatives of GroupNorm")
    x, plugin = clip(dtype), plugin.to(dtype)
    y = plugin(x)
    cotangents = torch.randn(3, *y.shape).to(dtype)
    wanted = [x, *plugin.parameters()]
    given = dict(retain_graph=True, create_graph=again, allow_unused=True)
    found = torch.autograd.grad(y, wanted, cotangents, is_grads_batched=True, **given)
    each = [torch.autograd.grad(y, wanted, one, **given) for one in cotangents]
    expected = [
        None if of[0] is None else torch.stack(of) for of in zip(*each, strict=True)
    ]
    equal(
        found, expected, torch.finfo(dtype).eps * (16 if x.element_size() < 4 else 1e6)
    )


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_vmap_over_one_input_alone(plugin, dtype):
    """As ensembles of one network that differ in a weight."""
    plugin, x = plugin.to(dtype), clip(dtype).detach()
    weights = {"x": x, **{n: p.detach() for n, p in plugin.named_parameters()}}

    def run(given):
        given = dict(given)
        return torch.func.functional_call(plugin, given, (given.pop("x"),))

    for name, weight in weights.items():
        several = torch.stack([weight, weight * 1.5, weight * 0.5])
        dims = ({key: 0 if key == name else None for key in weights},)
        found = torch.func.vmap(run, dims)({**weights, name: several})
        expected = torch.stack([run({**weights, name: one}) for one in several])
        eps = torch.finfo(dtype).eps
        equal([found], [expected], eps * 100)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("last", [False, True], ids=["", "channels last"])
def test_what_follows_may_write_in_place(plugin, dtype, last):
    """As an in-place ReLU does."""
    x, plugin = clip(dtype), plugin.to(dtype)
    if last:
        x = x.detach().contiguous(memory_format=torch.channels_last_3d).requires_grad_()
    expected = gradients(plugin(x).relu().sum(), plugin, x)
    found = gradients(plugin(x).relu_().sum(), plugin, x)
    equal(found, expected, 0)
    with torch.no_grad():
        torch.testing.assert_close(plugin(x).relu_(), plugin(x).relu(), rtol=0, atol=0)


def test_gradient_penalties_by_torch_func(plugin):
    x = clip().detach()

    def loss(x):
        return plugin(x).square().sum()

    found = torch.func.grad(lambda x: torch.func.grad(loss)(x).square().sum())(x)
    x.requires_grad_()
    equal([found], torch.autograd.grad(penalty(plugin, x), x))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_gradients_of_single_samples_by_vmap(plugin):
    clips = clip(shape=(3, 8, 4, 5, 3)).detach()
    weights = {n: p.detach() for n, p in plugin.named_parameters()}

    def loss(weights, x):
        y = torch.func.functional_call(plugin, weights, (x.unsqueeze(0),))
        return y.square().sum()

    of_each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, clips)
    for index, x in enumerate(clips):
        plugin.zero_grad()
        plugin(x.unsqueeze(0)).square().sum().backward()
        largest = max(p.grad.abs().max() for p in plugin.parameters())
        for name, parameter in plugin.named_parameters():
            error = (of_each[name][index] - parameter.grad).abs().max()
            assert error <= 1e-10 * largest, name


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_jacobians_and_hessians_by_torch_func(plugin):
    """There a backward pass is given tensors that do not say what they require."""
    plugin.requires_grad_(False)
    x = clip(shape=(1, 8, 2, 3, 2)).detach()

    def loss(x):
        return plugin(x).square().sum()

    for found, expected in (
        (torch.func.jacrev(plugin)(x), torch.autograd.functional.jacobian(plugin, x)),
        (
            torch.func.jacrev(torch.func.grad(loss))(x),
            torch.autograd.functional.hessian(loss, x),
        ),
    ):
        error = (found - expected).abs().max()
        assert error <= 1e-10 * expected.abs().max()


def test_first_gradient_is_the_same_where_a_second_may_follow(plugin):
    x = clip()
    wanted = [x, *plugin.parameters()]
    loss = plugin(x).square().sum()
    plain = torch.autograd.grad(loss, wanted, retain_graph=True)
    again = torch.autograd.grad(loss, wanted, create_graph=True)
    largest = max(g.abs().max() for g in plain)
    for first, second in zip(plain, again, strict=True):
        assert (second - first).abs().max() <= 1e-10 * largest
    # The penalty on the gradient, as WGAN-GP and double backward use it.
    again[0].square().sum().backward()
    assert x.grad.isfinite().all()


BOUNDS = {torch.float64: 1e-9, torch.float16: 0.1, torch.bfloat16: 0.25}


def near(found, expected, dtype):
    """Equal but for what the type rounds in a second derivative."""
    largest = max(t.abs().max() for t in expected if t is not None)
    for one, other in zip(found, expected, strict=True):
        if other is None:
            continue
        assert one.isfinite().all()
        scale = max(other.abs().max(), 0.1 * largest)
        assert (one.double() - other).abs().max() <= BOUNDS[dtype] * scale


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
@pytest.mark.parametrize("transform", [False, True], ids=["dual", "torch.func.jvp"])
def test_forward_mode(plugin, dtype, transform):
    """Along one direction in features and weights, against backward mode."""
    plugin.to(dtype).double()  # what the type can hold
    tensors = {"x": clip(dtype).double(), **dict(plugin.named_parameters())}
    tensors = {name: t.detach() for name, t in tensors.items()}
    along = {n: torch.randn_like(t).to(dtype).double() for n, t in tensors.items()}

    def run(given):
        given = dict(given)
        return torch.func.functional_call(plugin, given, (given.pop("x"),))

    y, expected = torch.autograd.functional.jvp(
        lambda *given: run(dict(zip(tensors, given, strict=True))),
        tuple(tensors.values()),
        tuple(along.values()),
    )
    tensors, along = (
        {name: t.to(dtype) for name, t in of.items()} for of in (tensors, along)
    )
    plugin.to(dtype)
    with pretended_gpu(dtype != torch.float64):
        if transform:
            found = torch.func.jvp(run, (tensors,), (along,))
        else:
            with forward_ad.dual_level():
                duals = {n: forward_ad.make_dual(tensors[n], along[n]) for n in tensors}
                found = forward_ad.unpack_dual(run(duals))
    near([found[0]], [y], dtype)
    near([found[1]], [expected], dtype)


def test_hessians_by_torch_func(plugin):
    """Forward over backward."""
    plugin.requires_grad_(False)
    x = clip(shape=(1, 8, 2, 2, 1)).detach()

    def loss(x):
        return plugin(x).square().sum()

    expected = torch.autograd.functional.hessian(loss, x)
    near([torch.func.hessian(loss)(x)], [expected], torch.float64)


@pytest.mark.parametrize(
    ("dtype", "transform"),
    [(torch.bfloat16, False), (torch.bfloat16, True), (torch.float16, False)],
    ids=str,
)
def test_gradient_penalties_in_half_types_on_a_gpu(plugin, dtype, transform):
    plugin.to(dtype).double()  # what the type can hold
    x = clip(dtype).detach().double().requires_grad_()

    def loss(x):
        return plugin(x).double().square().sum() / 16

    def of_penalty():
        if transform:
            second = torch.func.grad(lambda x: torch.func.grad(loss)(x).double().norm())
            return [second(x.detach())]
        (of_x,) = torch.autograd.grad(loss(x), x, create_graph=True)
        return gradients(of_x.double().norm(), plugin, x)

    expected = of_penalty()
    plugin.to(dtype)
    x = clip(dtype)
    with pretended_gpu():
        near(of_penalty(), expected, dtype)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_transforms_within_a_dual_level(plugin):
    """Which hide the tangents of what they wrap."""
    x = clip(shape=(2, 8, 2, 3, 2)).detach()
    along = torch.randn_like(x)

    def loss(x):
        return plugin(x).square().sum()

    def clips(x):
        return torch.func.vmap(lambda one: plugin(one.unsqueeze(0)).squeeze(0))(x)

    outputs, tangents = torch.func.jvp(plugin, (x,), (along,))
    with forward_ad.dual_level():
        near([clips(x)], [outputs], torch.float64)
        dual = forward_ad.make_dual(x, along)
        each = forward_ad.unpack_dual(clips(dual))
        near([*each], [outputs, tangents], torch.float64)
        if any(isinstance(m, nn.GroupNorm) for m in plugin.modules()):
            return  # whose gradient torch gives no tangent
        of_x = forward_ad.unpack_dual(torch.func.grad(loss)(dual))
    expected = torch.autograd.functional.hvp(loss, x, along)[1]
    near([of_x.tangent], [expected], torch.float64)


def test_gradients_of_directional_derivatives(plugin):
    """Backward over forward, against finite differences: torch has third ones wrong."""
    if any(type(m) is GlobalContext3d for m in plugin.modules()):
        pytest.skip("torch's LayerNorm has wrong gradients of its tangents")
    x = clip().detach()
    along, probe = torch.randn_like(x), torch.randn_like(x)

    def size(x):
        return torch.func.jvp(plugin, (x,), (along,))[1].square().sum()

    found = (torch.func.grad(size)(x) * probe).sum()
    step = 1e-5
    expected = (size(x + step * probe) - size(x - step * probe)) / (2 * step)
    scale = max(expected.abs(), 1e-2 * size(x))
    assert (found - expected).abs() <= 1e-4 * scale


def test_failed_gradients_leave_nothing_behind(monkeypatch):
    """As out of memory: of what fused attention had been given on a GPU."""
    block = make("NonLocalBlock", 3, mode="gaussian").bfloat16()

    class Stops(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *rows):
            return torch.nn.functional.scaled_dot_product_attention(*rows)

        @staticmethod
        def backward(ctx, grad):
            raise RuntimeError("out of memory")

    monkeypatch.setattr(
        fused_attention,
        "scaled_dot_product_attention",
        lambda *rows, scale: Stops.apply(*rows),
    )
    kept = weakref.WeakSet()
    for _ in range(3):
        x = clip(torch.bfloat16)
        kept.add(x)
        with pretended_gpu(), pytest.raises(RuntimeError, match="out of memory"):
            torch.autograd.grad(block(x).sum(), x, create_graph=True)
        del x
    gc.collect()
    assert not kept
