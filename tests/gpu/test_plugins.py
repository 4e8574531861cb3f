"""Every plugin on a GPU against itself on the CPU in float64.

There its references hold it. ``POLYNL_TEST_DEVICE=cpu`` runs the same comparisons
without a GPU, so that they are known to work before there is one.
"""

import contextlib
import os

import pytest
import torch
from gpu_cases import CASES, IDS, PRECISIONS, assert_near, build, run

import polynl_mm
from polynl_mm.clip_parallel.parts import together

DEVICE = os.environ.get("POLYNL_TEST_DEVICE", "cuda")
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(
        DEVICE == "cuda" and not torch.cuda.is_available(),
        reason="torch sees no CUDA GPU on this machine",
    ),
]
COMPILED = sorted({name for name, _ in CASES if name.endswith("3d")})
if DEVICE == "cpu":  # whose compiler takes a minute for some
    COMPILED = ["PolyNL3d"]


@contextlib.contextmanager
def multiplying(precision):
    """Multiply in float32 without TF32, with it, or under autocast."""
    if precision in ("bfloat16", "float16"):
        with torch.autocast(DEVICE, dtype=getattr(torch, precision)):
            yield
        return
    backends = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [b.allow_tf32 for b in backends]
    for backend in backends:
        backend.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.allow_tf32 = value


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("name", "arguments"), CASES, ids=IDS)
def test_equals_float64_on_the_cpu(name, arguments, precision):
    plugin, x = build(name, arguments)
    expected = run(plugin.double(), x.double())
    plugin = plugin.float().to(DEVICE)
    with multiplying(precision):
        found = run(plugin, x.to(DEVICE))
    assert_near(plugin, found, expected, precision)


@pytest.mark.parametrize(("name", "arguments"), CASES, ids=IDS)
def test_channels_last_stays_channels_last(name, arguments):
    plugin, x = build(name, arguments)
    layout = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
    plugin, x = plugin.to(DEVICE), x.to(DEVICE)
    with multiplying("float32"):
        expected = run(plugin, x)
        found = run(plugin, x.contiguous(memory_format=layout))
    assert_near(plugin, found, expected, "float32")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [(name, arguments) for name, arguments in CASES if name.endswith("3d")],
)
def test_parts_of_a_clip_equal_the_whole(name, arguments):
    plugin, x = build(name, arguments)
    plugin, x = plugin.to(DEVICE), x.to(DEVICE)

    def in_parts(whole):
        return torch.cat(together(plugin, whole.split((2, 2), dim=2)), dim=2)

    with multiplying("float32"):
        expected = run(plugin, x)
        found = run(plugin, x, in_parts)
    assert_near(plugin, found, expected, "float32")


@pytest.mark.parametrize(("precision", "bound"), [("float32", 2e-3), ("bfloat16", 0.5)])
@pytest.mark.parametrize(("name", "arguments"), CASES, ids=IDS)
def test_second_and_forward_derivatives(name, arguments, precision, bound):
    plugin, x = build(name, arguments)
    plugin.eval()  # torch.func lets no norm count
    x.requires_grad_()

    def second(x):
        loss = plugin(x).double().square().sum()
        (of_x,) = torch.autograd.grad(loss, x, create_graph=True)
        return torch.autograd.grad(of_x.double().norm(), x)[0]

    def forward(x):
        return torch.func.jvp(plugin, (x.detach(),), (x.detach(),))[1]

    plugin.double()
    expected = [second(x.double()), forward(x.double())]
    plugin, x = plugin.float().to(DEVICE), x.to(DEVICE)
    with multiplying(precision):
        found = [second(x)]
    if precision == "float32":
        found.append(forward(x))
    for ours, theirs in zip(found, expected, strict=False):
        error = (ours.double().cpu() - theirs).abs().max() / theirs.abs().max()
        assert error <= bound


@pytest.mark.skipif(DEVICE != "cuda", reason="is of GPUs alone")
@pytest.mark.parametrize(("name", "arguments"), CASES, ids=IDS)
def test_a_cuda_graph_replays_it(name, arguments):
    """Neither waits for the GPU nor reads from the host's memory."""
    plugin, x = build(name, arguments)
    plugin, x = plugin.to(DEVICE).eval(), x.to(DEVICE)
    other = torch.randn_like(x)
    with torch.no_grad(), multiplying("float32"):
        expected = plugin(other) - other
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # libraries make their workspaces
            plugin(x)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = plugin(x)
        x.copy_(other)
        graph.replay()
    found, expected = (y - other).double(), expected.double()
    assert (found - expected).abs().max() <= 2e-4 * expected.abs().max()


@pytest.mark.skipif(DEVICE != "cuda", reason="is of GPUs alone")
@pytest.mark.parametrize(("name", "arguments"), CASES, ids=IDS)
def test_training_steps_do_not_wait_for_the_gpu(name, arguments):
    plugin, x = build(name, arguments)
    plugin, x = plugin.to(DEVICE), x.to(DEVICE).requires_grad_()
    plugin(x).sum().backward()  # what is made once
    torch.cuda.set_sync_debug_mode("error")
    try:
        plugin(x).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", COMPILED)
def test_compiles_whole(name):
    plugin, x = build(name, {})
    plugin, x = plugin.to(DEVICE), x.to(DEVICE)
    with multiplying("float32"):
        expected = run(plugin, x)
        torch.compiler.reset()
        compiled = torch.compile(plugin, fullgraph=True)
        inputs = x.detach().requires_grad_()
        y = compiled(inputs)
        cotangent = torch.linspace(-1, 1, y.numel()).reshape(y.shape).to(y)
        grads = torch.autograd.grad(y, [inputs, *plugin.parameters()], cotangent)
    found = [(y - inputs).detach(), *grads]
    assert_near(plugin, [t.double().cpu() for t in found], expected, "float32")


@pytest.mark.parametrize("schedule", ["gram", "direct"])
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_compiles_under_autocast(precision, schedule):
    plugin, x = build("PolyNL3d", dict(schedule=schedule, reduction=2))
    expected = run(plugin.double(), x.double())
    plugin, x = plugin.float().to(DEVICE), x.to(DEVICE)
    torch.compiler.reset()
    compiled = torch.compile(plugin, fullgraph=True)
    with multiplying(precision):
        inputs = x.detach().requires_grad_()
        y = compiled(inputs)
    cotangent = torch.linspace(-1, 1, y.numel()).reshape(y.shape).to(y)
    grads = torch.autograd.grad(y, [inputs, *plugin.parameters()], cotangent)
    found = [t.double().cpu() for t in ((y - inputs).detach(), *grads)]
    assert_near(plugin, found, expected, precision)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["PolyNL3d", "SpectralNL3d", "DoubleAttention3d"])
def test_long_half_precision_sums_keep_float32(name, dtype):
    """As many positions as a real layer has, in a type that cannot count them."""
    torch.manual_seed(0)
    plugin = getattr(polynl_mm, name)(16, zero_init=False).to(DEVICE)
    x = torch.randn(1, 16, 16, 32, 32, device=DEVICE) + 1.0
    with torch.no_grad():
        expected = plugin.double()(x.double()) - x.double()
        with torch.autocast(DEVICE, dtype=getattr(torch, dtype)):
            found = plugin.float()(x).double() - x.double()
    bound, _ = PRECISIONS[dtype]
    assert (found - expected).abs().max() <= bound * expected.abs().max()
