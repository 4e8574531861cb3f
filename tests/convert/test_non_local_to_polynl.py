"""What a non-local network's weights become in a Poly-NL network."""

import pytest
import torch
from mmengine.config import Config

from polynl_mm import NonLocalBlock3d, PolyNL3d
from polynl_mm.convert.non_local_to_polynl import convert, describe_plugins
from polynl_mm.recognizers.building import build_recognizer
from polynl_mm.user_errors import UserError

BACKBONE = dict(
    type="ResNet3dSlowOnly",
    depth=18,
    pretrained=None,
    lateral=False,
    num_stages=2,
    base_channels=8,
    spatial_strides=(1, 2),
    temporal_strides=(1, 1),
    dilations=(1, 1),
    out_indices=(1,),
    inflate=(0, 0),
    conv1_kernel=(1, 3, 3),
    conv1_stride_t=1,
    pool1_stride_t=1,
)
NON_LOCAL = dict(norm_cfg=dict(type="BN3d"), mode="dot_product", sub_sample=True)


def build(backbone, classes=3):
    head = dict(type="I3DHead", num_classes=classes, in_channels=16)
    model = dict(type="Recognizer3D", backbone=backbone, cls_head=head)
    return build_recognizer(Config(dict(model=model)), "tiny")


def with_plugins(*entries, **changes):
    changed = dict(BACKBONE, type="WithPlugins", of=BACKBONE["type"], **changes)
    return dict(changed, plugins=list(entries))


def entry(blocks, **cfg):
    return dict(cfg=dict(dict(type="PolyNL3d", reduction=2), **cfg), blocks=blocks)


@pytest.fixture
def trained():
    """The state dict of a network with mmcv's blocks after layer1.1 and layer2.0."""
    places = ((0, 1), (1, 0))
    model = build(dict(BACKBONE, non_local=places, non_local_cfg=NON_LOCAL))
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.normal_(std=0.3, generator=generator)
        if name.endswith("running_var"):
            tensor.abs_().add_(0.5)
    return {key: value.clone() for key, value in model.state_dict().items()}


def logits(model):
    clip = torch.randn(2, 1, 3, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model.eval()(clip, mode="tensor", stage="head")


def test_starts_as_the_source_without_its_blocks(trained):
    """Wherever the config's blocks are, and whether or not weights map."""
    base = build(BACKBONE)
    base.load_state_dict({k: v for k, v in trained.items() if "non_local" not in k})
    target = build(with_plugins(entry(((1,), (1,)), zero_init=False)))
    done = convert(trained, target)
    assert done.mapped == ["backbone.layer1.1.poly_nl"]
    assert done.identities == ["backbone.layer2.1.poly_nl"]
    fresh = build(with_plugins(entry(((1,), (1,)), zero_init=False)))
    fresh.load_state_dict(done.weights)  # complete, and strict
    torch.testing.assert_close(logits(fresh), logits(base), rtol=0, atol=0)
    log = "\n".join(done.log)
    mapped = "backbone.layer1.1.poly_nl: theta <- g, phi <- phi, g <- theta"
    assert mapped in log and "g.bias" in log
    assert "layer2.1.poly_nl: starts as the identity, because the checkpoint has" in log
    assert "layer2.0.non_local_block: left out" in log


def test_mapped_block_is_the_diagonal_of_the_non_local_block():
    torch.manual_seed(0)
    block = NonLocalBlock3d(6, mode="dot_product", zero_init=False, std=0.5).eval()
    for projection in (block.theta, block.phi, block.g, block.conv_out):
        torch.nn.init.zeros_(projection.conv.bias)
    source = {f"layer1.0.non_local_block.{k}": v for k, v in block.state_dict().items()}
    done = convert(source, alpha=1.0)
    poly = PolyNL3d(6, reduction=2)
    prefix = "layer1.0.poly_nl."
    poly.load_state_dict(
        {k.removeprefix(prefix): v for k, v in done.weights.items() if prefix in k}
    )
    x = torch.randn(2, 6, 3, 4, 5)
    theta, phi, g = (getattr(block, n)(x).flatten(2) for n in ("theta", "phi", "g"))
    moment = g @ phi.mT / phi.shape[2]  # (B, K, K), which the block applies to theta
    y = block.conv_out((moment @ theta).unflatten(2, x.shape[2:]))
    torch.testing.assert_close(x + y, block(x))
    diagonal = torch.diag_embed(moment.diagonal(dim1=1, dim2=2))
    y = block.conv_out((diagonal @ theta).unflatten(2, x.shape[2:]))
    torch.testing.assert_close(poly(x), x + y)


@pytest.mark.parametrize("norm_cfg", [None, dict(type="BN3d")])
def test_one_inner_channel_is_exact(norm_cfg):
    """Where M has one entry, its diagonal is all of it, the norm's scale included."""
    torch.manual_seed(0)
    block = NonLocalBlock3d(2, mode="dot_product", norm_cfg=norm_cfg, zero_init=False)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    biased = [block.theta, block.phi, block.g] + ([] if norm_cfg else [block.conv_out])
    for projection in biased:
        torch.nn.init.zeros_(projection.conv.bias)
    if norm_cfg:
        block.conv_out.bn.running_var.fill_(2.5)
        torch.nn.init.zeros_(block.conv_out.bn.bias)
    block.eval()
    source = {f"layer1.0.non_local_block.{k}": v for k, v in block.state_dict().items()}
    weights = convert(source, alpha=1.0).weights
    poly = PolyNL3d(2, reduction=2)
    poly.load_state_dict({k.rpartition("poly_nl.")[2]: weights[k] for k in weights})
    x = torch.randn(2, 2, 3, 4, 5)
    torch.testing.assert_close(poly(x), block(x))


def test_norm_of_the_plugin_takes_the_norm_over(trained):
    plugin = entry(((1,), ()), norm_cfg=dict(type="BN3d"))
    weights = convert(trained, build(with_plugins(plugin))).weights
    for name in ("weight", "bias", "running_mean", "running_var"):
        given = trained[f"backbone.layer1.1.non_local_block.conv_out.bn.{name}"]
        assert torch.equal(weights[f"backbone.layer1.1.poly_nl.norm.{name}"], given)
    given = trained["backbone.layer1.1.non_local_block.conv_out.conv.weight"]
    assert torch.equal(weights["backbone.layer1.1.poly_nl.out.weight"], given)


@pytest.mark.parametrize(
    ("change", "because"),
    [
        (dict(reduction=1), "4 inner channels; PolyNL with reduction=2 would"),
        (dict(type="SpectralNL3d"), "it is a SpectralNL3d"),
    ],
)
def test_what_does_not_map_says_why(trained, change, because):
    plugins = [entry(((), (0,))), dict(entry(((1,), ()), **change))]
    if "type" in change:
        del plugins[1]["cfg"]["reduction"]
    done = convert(trained, build(with_plugins(*plugins)))
    assert done.mapped == ["backbone.layer2.0.poly_nl"]
    assert any(because in line for line in done.log)
    expected = "cfg=dict(type='PolyNL3d', reduction=2), blocks=((1,), (0,), (), ())"
    assert describe_plugins(done, trained) == expected


@pytest.mark.parametrize("mode", ["gaussian", "concatenation"])
def test_modes_without_theta_times_phi(mode):
    block = NonLocalBlock3d(8, mode=mode)
    source = {f"layer1.0.non_local_block.{k}": v for k, v in block.state_dict().items()}
    done = convert(source, alpha=1.0)
    assert done.mapped == [] and done.identities == ["layer1.0.poly_nl"]
    assert done.weights["layer1.0.poly_nl.alpha"] == 0


def test_wrapper_of_tsm_is_taken_out():
    block = NonLocalBlock3d(8, sub_sample=True).state_dict()
    source = {f"backbone.layer2.0.non_local_block.{k}": v for k, v in block.items()}
    source["backbone.layer2.0.block.conv1.conv.net.weight"] = torch.ones(1)
    source["backbone.layer1.0.block.weight"] = torch.ones(1)  # not TSM's wrapper
    weights = convert(source).weights
    assert "backbone.layer2.0.conv1.conv.net.weight" in weights
    assert "backbone.layer1.0.block.weight" in weights


def test_another_head_is_new(trained):
    target = build(with_plugins(entry(((1,), ()))), classes=7)
    done = convert(trained, target)
    assert done.weights["cls_head.fc_cls.weight"].shape == (7, 16)
    assert any("cls_head.fc_cls.weight" in line and "new" in line for line in done.log)


def test_unfit_sources_and_targets(trained):
    base = {key: value for key, value in trained.items() if "non_local" not in key}
    with pytest.raises(UserError, match="no non-local block"):
        convert(base)
    with pytest.raises(UserError, match=r"pyslowfast\.py first"):
        convert({"s2.pathway0_res0.branch1.weight": torch.ones(1)})
    with pytest.raises(UserError, match="no PolyNL2d or PolyNL3d"):
        convert(trained, build(BACKBONE))
    wide = with_plugins(entry(((1,), ())), base_channels=16)
    head = dict(type="I3DHead", num_classes=3, in_channels=32)
    model = dict(type="Recognizer3D", backbone=wide, cls_head=head)
    target = build_recognizer(Config(dict(model=model)), "wide")
    with pytest.raises(UserError, match="another backbone"):
        convert(trained, target)


def test_biases_have_a_place_in_a_poly_nl_that_has_them():
    torch.manual_seed(0)
    block = NonLocalBlock3d(2, mode="dot_product", zero_init=False)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    model, poly = torch.nn.Module(), PolyNL3d(2, reduction=2, bias=True)
    model.host = torch.nn.Module()
    model.host.poly_nl = poly
    source = {f"host.non_local_block.{k}": v for k, v in block.state_dict().items()}
    done = convert(source, model, alpha=1.0)
    assert "no place for nothing" in "\n".join(done.log)
    x = torch.randn(2, 2, 3, 4, 5)
    torch.testing.assert_close(poly(x), block(x))


@pytest.mark.parametrize("alpha", [1e39, float("nan"), float("-inf")])
def test_alpha_is_a_number_of_float32(alpha):
    with pytest.raises(UserError, match="alpha is a number that float32 holds"):
        convert({}, alpha=alpha)
