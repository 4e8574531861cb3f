"""The parts of a clip in one process give what the whole clip gives."""

from collections import Counter

import pytest
import torch
from shared_plugins import assert_equal, build, cases, clip, result

from polynl_mm.clip_parallel.parts import together
from polynl_mm.plugins import NonLocalBlock3d, PolyNL3d

PARTS = [(6, 2), (2, 4, 2)]


def in_parts(lengths, through=None):
    """Return what computes a block in parts of these lengths."""
    return lambda block, x: torch.cat(
        together(block, x.split(lengths, dim=2), through), dim=2
    )


@pytest.mark.parametrize(
    ("plugin", "options"), cases(), ids=lambda v: getattr(v, "__name__", str(v))
)
def test_parts_of_unequal_length_equal_the_whole(plugin, options):
    x = clip(8)
    whole = result(build(plugin, options), x, lambda block, x: block(x))
    for lengths in PARTS:
        assert_equal(result(build(plugin, options), x, in_parts(lengths)), whole)


class Counting:
    """Counts what a holder is given."""

    def __init__(self, holder):
        self.holder, self.sent = holder, Counter()

    def __getattr__(self, name):
        def counted(*given):
            tensors = [t for t in given if isinstance(t, torch.Tensor)]
            self.sent[name] += sum(t.numel() for t in tensors)
            return getattr(self.holder, name)(*given)

        return counted


def _linear():
    slow = ("softmax", "whitened")
    names = ("CrissCross3d", "NonLocalStage3d", "Pointwise3d")
    for plugin, options in cases():
        if options.get("axes") != "spacetime" or plugin.__name__ in names:
            continue
        non_linear = plugin is NonLocalBlock3d and options.get("mode") != "dot_product"
        if not non_linear and options.get("affinity") not in slow:
            yield plugin, options


@pytest.mark.parametrize(
    ("plugin", "options"), _linear(), ids=lambda v: getattr(v, "__name__", str(v))
)
def test_what_linear_blocks_send_does_not_grow_with_the_clip(plugin, options):
    sent = []
    for lengths in ((8, 9), (32, 33)):
        counts = []

        def counting(holder, counts=counts):
            counts.append(Counting(holder))
            return counts[0]

        in_parts(lengths, counting)(build(plugin, options), clip(sum(lengths)))
        sent.append(counts[0].sent)
    assert sent[0] == sent[1]
    assert sent[0]["sum"] > 0
    assert not sent[0]["gather"]


@pytest.mark.parametrize("schedule", ["direct", "gram"])
def test_poly_nl_sends_k_numbers_and_the_count(schedule):
    counts = []
    block = build(PolyNL3d, dict(schedule=schedule, reduction=2))

    def counting(holder):
        counts.append(Counting(holder))
        return counts[0]

    in_parts((3, 5), counting)(block, clip(8))
    assert counts[0].sent == {"sum": 2 * (2 * 4 + 1)}  # parts, samples, K, count


def test_parts_that_cut_a_window_of_the_pooling_are_refused():
    block = build(NonLocalBlock3d, dict(sub_sample=True, pool_size=(2, 2, 2)))
    with pytest.raises(ValueError, match=r"parts of a clip have \(3, 5\) frames"):
        in_parts((3, 5))(block, clip(8))


@pytest.mark.parametrize("transform", ["grad", "jvp", "vmap"])
def test_transforms_that_do_not_see_the_parts_are_refused(transform):
    plugin = PolyNL3d(4)
    x = torch.randn(1, 4, 4, 2, 2)

    def run(x):
        return torch.cat(together(plugin, x.split((1, 3), dim=2)), dim=2)

    with pytest.raises(RuntimeError, match="computed in threads, into which"):
        if transform == "grad":
            torch.func.grad(lambda x: run(x).sum())(x)
        elif transform == "jvp":
            torch.func.jvp(run, (x,), (x,))
        else:
            torch.func.vmap(run)(x.unsqueeze(0))
