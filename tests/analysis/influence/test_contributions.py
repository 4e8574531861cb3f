"""Contributions add up to the update, in memory linear in the positions."""

import math

import pytest
import torch
from explained_plugins import (
    CASES,
    LAYOUTS,
    POOLED,
    POSITIONS,
    TOLERANCES,
    check_sum,
    make,
)
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import polynl_mm
from polynl_mm.analysis.influence import contributions
from polynl_mm.plugins import Plugin


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("dims, axes", LAYOUTS)
@pytest.mark.parametrize("case", CASES)
def test_contributions_add_up_to_the_update(case, dims, axes, dtype):
    kind, arguments = CASES[case]
    at = (3, 2) if dims == 2 else (2, 4, 1)
    found = check_sum(make(kind, dims, axes, **arguments), POSITIONS[dims], dtype, at)
    elsewhere = found.norms.clone()
    if axes == "space":
        elsewhere[2] = 0
    elif axes == "time":
        elsewhere[:, 4, 1] = 0
    else:
        return
    assert elsewhere.max() == 0 and found.norms.max() > 0


PLACED = [case for case in CASES if case != "pointwise"]


@pytest.mark.parametrize("dims, axes", LAYOUTS)
@pytest.mark.parametrize("case", [*PLACED, *POOLED])
def test_blocks_that_know_positions_add_up_too(case, dims, axes):
    kind, arguments = CASES.get(case) or ("NonLocalBlock", POOLED[case])
    if case in POOLED and (dims, axes) != (3, "spacetime"):
        pytest.skip("the pooling and the groups are those of a clip")
    at = (3, 2) if dims == 2 else (3, 4, 1)
    plugin = make(kind, dims, axes, positions="sine", **arguments)
    if "concat" in case:  # a ReLU that passes something
        nn.init.uniform_(plugin.concat_project.conv.weight, -0.1, 0.3)
    check_sum(plugin, POSITIONS[dims], torch.float64, at)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("case", POOLED)
def test_pooled_contributions_add_up_too(case, dtype):
    check_sum(make("NonLocalBlock", 3, **POOLED[case]), (4, 5, 7), dtype, (3, 4, 2))


class Largest(TorchDispatchMode):
    """Notes the elements of the largest tensor that is made."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                # An expanded view holds what it is a view of.
                self.numel = max(self.numel, leaf.untyped_storage().nbytes() // 4)
        return made


# Order 3 of a softmax takes the square of N in time, as the block itself does.
LINEAR = [case for case in CASES if case != "softmax_3"]


@pytest.mark.parametrize("case", [*LINEAR, *(case for case in POOLED)])
def test_memory_is_linear_in_the_positions(case):
    kind, arguments = CASES.get(case) or ("NonLocalBlock", POOLED[case])
    # Two units, and a GroupNorm, need the block to be run: of this size, for minutes.
    arguments = {**arguments}
    if kind == "NonLocalStage" or "groups" in case:
        arguments.pop("num_units", None)
        arguments.pop("norm_cfg", None)
    plugin = make(kind, 3, **arguments).float()
    shape = (32, 56, 56)  # 100 352 positions
    x = torch.randn(8, *shape)
    with Largest() as largest:
        found = contributions(plugin, x, (16, 28, 28))
    assert found.terms.isfinite().all()
    assert largest.numel < 200 * math.prod(shape)  # criss-cross: T + H + W = 144


@pytest.mark.parametrize("case", ["poly_nl", "dot_product", "snl", "efficient"])
def test_sums_over_many_positions_stay_close(case):
    kind, arguments = CASES[case]
    check_sum(make(kind, 3, **arguments), (32, 56, 56), torch.float32, (31, 0, 55))


def test_rows_of_high_order_hold_some_queries_at_a_time(monkeypatch):
    from polynl_mm.analysis.influence import rows

    monkeypatch.setattr(rows, "_CHUNK", 2**16)
    kind, arguments = CASES["softmax_3"]
    with Largest() as largest:
        contributions(
            make(kind, 3, **arguments).float(), torch.randn(8, 4, 32, 16), (0, 0, 0)
        )
    assert largest.numel <= 2**16 + 2048


def test_gradient_times_contribution_is_a_change_of_the_score():
    plugin = make("NonLocalBlock", 3, mode="dot_product")
    found = contributions(plugin, torch.randn(8, 2, 3, 4).double(), (1, 1, 1))
    gradient = torch.randn(8, dtype=torch.float64)
    torch.testing.assert_close(
        found.toward(gradient).sum(), gradient @ found.total, rtol=1e-10, atol=1e-10
    )


class Unknown(Plugin):
    """A plugin of somebody else."""

    dims = 3


def test_what_cannot_be_explained_is_refused():
    x = torch.zeros(8, 2, 3, 4)
    with pytest.raises(ValueError, match="not known of Unknown; it is of PolyNL, Non"):
        contributions(Unknown(8).eval(), x, (0, 0, 0))
    plugin = polynl_mm.PolyNL3d(8)
    with pytest.raises(ValueError, match="PolyNL3d is in training mode"):
        contributions(plugin, x, (0, 0, 0))
    with pytest.raises(ValueError, match=r"\(2, 0, 0\) is not among .* 2 x 3 x 4"):
        contributions(plugin.eval(), x, (2, 0, 0))
    with pytest.raises(ValueError, match="built with in_channels=8"):
        contributions(plugin, x[:4], (0, 0, 0))
    plugin = polynl_mm.NonLocalBlock3d(8, norm_cfg=dict(type="BN3d"))
    plugin.conv_out.bn = nn.BatchNorm3d(8, track_running_stats=False)
    with pytest.raises(ValueError, match="not with a BatchNorm3d without running"):
        contributions(plugin.eval(), x, (0, 0, 0))
    plugin.theta.conv = nn.Conv3d(8, 4, 3, padding=1)
    with pytest.raises(ValueError, match="convolutions of size 1, not of a Conv3d"):
        contributions(plugin.eval(), x, (0, 0, 0))


def test_identity_has_no_shares():
    plugin = polynl_mm.PolyNL3d(8).eval()
    found = contributions(plugin, torch.randn(8, 2, 3, 4), (0, 0, 0))
    assert found.shares.abs().max() == 0 and found.norms.max() == 0
