"""NonLocalBlock against mmcv's NonLocal2d and NonLocal3d."""

import pytest
import torch
from closeness import assert_close
from mmcv.cnn.bricks.non_local import NonLocal2d, NonLocal3d

from polynl_mm import NonLocalBlock2d, NonLocalBlock3d
from polynl_mm.plugins import non_local
from polynl_mm.plugins.non_local import MODES

PAIRS = {
    NonLocal2d: (NonLocalBlock2d, "BN", (2, 10, 6, 8)),
    NonLocal3d: (NonLocalBlock3d, "BN3d", (2, 10, 3, 6, 8)),
}


def make_pair(mmcv_class, **arguments):
    torch.manual_seed(0)
    ours_class, _, shape = PAIRS[mmcv_class]
    theirs = mmcv_class(10, zeros_init=False, std=0.3, **arguments)
    ours = ours_class(10, **arguments)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(shape, dtype=torch.float64)
    return ours.double(), theirs.double(), x


# Mode, sub_sample, and whether the block folds into one matrix a sample.
FORMS = [
    *((mode, True, False) for mode in MODES),
    *((mode, False, False) for mode in MODES),
    ("dot_product", False, True),
]


@pytest.mark.parametrize("mmcv_class", PAIRS)
@pytest.mark.parametrize("mode, sub_sample, folded", FORMS)
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("use_scale", [False, True])
def test_outputs_and_gradients_equal_mmcvs(
    mmcv_class, mode, sub_sample, folded, norm, use_scale, monkeypatch
):
    if not folded:
        monkeypatch.setattr(non_local, "is_cheaper", lambda *a, **k: False)
    norm_cfg = dict(type=PAIRS[mmcv_class][1]) if norm else None
    ours, theirs, x = make_pair(
        mmcv_class,
        mode=mode,
        sub_sample=sub_sample,
        norm_cfg=norm_cfg,
        use_scale=use_scale,
        # mmcv's gaussian mode multiplies x itself, whatever the reduction.
        reduction=2,
    )
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x.requires_grad_()
    assert ours._folds(x) == folded
    assert_close(ours(x), theirs(x), "output")
    ours(x).square().mean().backward()
    gradient, x.grad = x.grad, None
    assert gradient.isfinite().all()
    if mode == "concatenation":
        return  # mmcv's backward fails in this mode
    theirs(x).square().mean().backward()
    assert_close(gradient, x.grad, "gradient of x")
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        # A bias before a softmax or a norm has a gradient that only rounds to zero.
        if expected[name].grad.abs().max() > 1e-9:
            assert_close(parameter.grad, expected[name].grad, name)


def test_concatenation_has_a_right_gradient():
    block = NonLocalBlock3d(4, mode="concatenation", zeros_init=False, std=0.5)
    x = torch.randn(1, 4, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block.double(), (x,))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("axes", ["space", "time"])
def test_axes_limit_what_is_seen(mode, axes):
    block = NonLocalBlock3d(6, mode=mode, axes=axes, zeros_init=False, std=0.3)
    block = block.double()
    x = torch.randn(2, 6, 3, 4, 5, dtype=torch.float64)
    whole = NonLocalBlock3d(6, mode=mode, zeros_init=False).double()
    whole.load_state_dict(block.state_dict())
    y = block(x)
    if axes == "space":
        parts = [whole(x[:, :, t : t + 1]) for t in range(3)]
        expected = torch.cat(parts, dim=2)
    else:
        rows = [
            torch.cat([whole(x[..., i : i + 1, j : j + 1]) for j in range(5)], dim=4)
            for i in range(4)
        ]
        expected = torch.cat(rows, dim=3)
    assert_close(y, expected, axes)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("axes", ["spacetime", "space"])
def test_pool_first_sees_pooled_features(mode, axes):
    """It is the block whose phi and g are given the pooled features."""
    torch.manual_seed(0)
    options = dict(mode=mode, axes=axes, zero_init=False, std=0.5)
    block = NonLocalBlock3d(8, sub_sample=True, pool_first=True, **options).double()
    whole = NonLocalBlock3d(8, **options).double()
    whole.load_state_dict(block.state_dict())  # the keys of an unpooled block
    x = torch.randn(2, 8, 3, 4, 6, dtype=torch.float64)
    seen_by = dict(g=whole.g, phi=getattr(whole, "phi", torch.nn.Identity()))
    for name, layer in seen_by.items():
        setattr(whole, name, torch.nn.Sequential(torch.nn.MaxPool3d((1, 2, 2)), layer))
    whole.sub_sample = True
    assert_close(block(x), whole(x), mode)


@pytest.mark.parametrize("norm_cfg", [None, dict(type="BN3d")])
def test_identity_at_the_start(norm_cfg):
    x = torch.randn(2, 8, 2, 3, 4)
    for arguments in (dict(), dict(zero_init=True, zeros_init=False)):
        assert torch.equal(NonLocalBlock3d(8, norm_cfg=norm_cfg, **arguments)(x), x)
    block = NonLocalBlock3d(8, norm_cfg=norm_cfg, zero_init=False)
    assert not torch.equal(block(x), x)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(mode="softmax"), "mode is one of .*'dot_product'.* not 'softmax'"),
        (dict(reduction=0), "reduction is a whole number from 1, not 0"),
        (dict(sub_sample=True, axes="time"), "set sub_sample=False"),
        (dict(pool_first=True), "pool_first=True says when sub_sample=True pools"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=f"NonLocalBlock3d: {message}|{message}"):
        NonLocalBlock3d(8, **arguments)
