"""Influence within a recognizer: what is captured, the gradient, and refusals."""

from copy import deepcopy

import pytest
import torch
from mmengine.registry import init_default_scope
from small_backbones import BACKBONES, FIVE
from torch import nn

from polynl_mm.analysis.influence.contributions import update_of
from polynl_mm.analysis.influence.grad_cam import grad_cam
from polynl_mm.analysis.influence.in_model import (
    Pass,
    choose_plugin,
    explain,
    find_plugins,
    largest_response,
    run_through,
)
from polynl_mm.plugins import Plugin
from polynl_mm.user_errors import UserError

HEAD_3D = dict(type="I3DHead", num_classes=5, spatial_type="avg", average_clips="prob")
PREPROCESSOR = dict(type="ActionDataPreprocessor", mean=[120.0] * 3, std=[60.0] * 3)


def build(name):
    """Build a small recognizer with plugins that are not the identity."""
    init_default_scope("mmaction")
    from mmaction.registry import MODELS

    kind = dict(type="PolyNL3d")
    backbone, _, entry = deepcopy(BACKBONES[name])
    if name == "ResNetTSM":
        backbone["num_segments"] = 4
        entry = dict(FIVE, num_segments=4)
    plugins = dict(entry, cfg=kind)
    backbone = dict(type="WithPlugins", of=name, plugins=[plugins], **backbone)
    head = dict(HEAD_3D, in_channels=256, dropout_ratio=0)
    recognizer, shape, layout = "Recognizer3D", (1, 3, 8, 32, 32), "NCTHW"
    if name == "ResNet3dSlowFast":
        head.update(type="SlowFastHead", in_channels=512 + 256)
        shape = (1, 3, 16, 32, 32)
    elif name == "ResNetTSM":
        recognizer, shape, layout = "Recognizer2D", (4, 3, 32, 32), "NCHW"
        head = dict(type="TSMHead", num_classes=5, in_channels=2048, num_segments=4)
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type=recognizer,
            backbone=backbone,
            cls_head=head,
            data_preprocessor=dict(PREPROCESSOR, format_shape=layout),
        )
    )
    for plugin in find_plugins(model).values():
        nn.init.constant_(plugin.alpha, 0.1)
    nn.init.normal_(model.cls_head.fc_cls.weight, std=0.1)
    model.double().eval()
    return model, (torch.rand(shape) * 255).byte()


@pytest.fixture(scope="module", params=["ResNet3dSlowOnly", "ResNetTSM"])
def small(request):
    return build(request.param)


@pytest.fixture(scope="module")
def slowfast():
    return build("ResNet3dSlowFast")


def scores_with(model, inputs, path, change):
    """Return the scores where a change is added to what a module gives."""
    from mmaction.structures import ActionDataSample

    module = model.get_submodule(path)
    handle = module.register_forward_hook(lambda _, args, output: output + change)
    model.cls_head.average_clips, before = "score", model.cls_head.average_clips
    with torch.no_grad():
        result = model.test_step(
            dict(inputs=[inputs], data_samples=[ActionDataSample()])
        )
    model.cls_head.average_clips = before
    handle.remove()
    return result[0].pred_score


def check_gradient(model, inputs, path):
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    average = model.cls_head.average_clips
    seen = run_through(model, inputs, path, label=3)
    after = {name: p.requires_grad for name, p in model.named_parameters()}
    assert before == after and model.cls_head.average_clips == average
    assert not model.get_submodule(path)._forward_hooks
    step = torch.randn_like(seen.output) * 1e-6 * seen.output.std()
    more, less = (scores_with(model, inputs, path, sign * step)[3] for sign in (1, -1))
    slope = (seen.gradient * step).sum()
    torch.testing.assert_close((more - less) / 2, slope, rtol=1e-3, atol=1e-9)
    return seen


def test_gradient_is_that_of_the_score(small):
    model, inputs = small
    path = choose_plugin(model, None)
    assert path == list(find_plugins(model))[-1]
    seen = check_gradient(model, inputs, path)
    assert seen.features.dim() == 5  # segments of a network of images, too
    plugin = model.get_submodule(path)
    at = largest_response(plugin, seen)
    found = explain(plugin, seen, at)
    update = update_of(plugin, seen.features, seen.output)
    here = update[(at[0], slice(None), *at[1:])]
    torch.testing.assert_close(found.update, here, rtol=1e-8, atol=1e-8)
    assert here.norm() == update.norm(dim=1).max()


@pytest.mark.parametrize("pathway", ["slow_path", "fast_path"])
def test_both_pathways(slowfast, pathway):
    model, inputs = slowfast
    path = f"backbone.{pathway}.layer3.1.poly_nl"
    seen = check_gradient(model, inputs, path)
    plugin = model.get_submodule(path)
    found = explain(plugin, seen, (0, 1, 0, 1))
    update = update_of(plugin, seen.features, seen.output)[0, :, 1, 0, 1]
    torch.testing.assert_close(found.update, update, rtol=1e-8, atol=1e-8)


@pytest.mark.filterwarnings("ignore:Using a non-full backward hook")
@pytest.mark.parametrize("pathway", ["slow_path", "fast_path", None])
def test_grad_cam_is_mmaction2s_at_the_last_layer(small, slowfast, pathway):
    """Behind it the gradient is the same everywhere, however it is averaged."""
    from mmaction.structures import ActionDataSample
    from mmaction.utils.gradcam_utils import GradCAM

    model, inputs = slowfast if pathway else small
    path = ".".join(filter(None, ["backbone", pathway, "layer4"]))
    ours = grad_cam(run_through(model, inputs, path))
    ours = ours[0] if ours.dim() == 4 else ours  # (T', H', W')
    data = dict(inputs=[inputs], data_samples=[ActionDataSample()])
    average, theirs = (
        model.cls_head.average_clips,
        GradCAM(model, path.replace(".", "/")),
    )
    theirs = theirs._calculate_localization_map(data, use_labels=False)[0][0]
    model.cls_head.average_clips = average
    model.get_submodule(path)._forward_hooks.clear()
    model.get_submodule(path)._backward_hooks.clear()
    ours = nn.functional.interpolate(
        ours[None, None], size=theirs.shape, mode="trilinear", align_corners=False
    )[0, 0]
    ours = (ours - ours.min()) / (ours.max() - ours.min())
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("positions", [(3, 4), (2, 3, 4)])
def test_grad_cam_is_the_papers(positions):
    output, gradient = torch.randn(2, 2, 5, *positions)
    found = grad_cam(Pass(output, output, torch.zeros(3), gradient, 0))
    for b in range(2):
        expected = 0
        for c in range(5):
            expected = expected + gradient[b, c].mean() * output[b, c]
        torch.testing.assert_close(found[b], expected.clamp(min=0))


def test_what_cannot_be_looked_at_is_refused(small):
    model, inputs = small
    name = next(iter(find_plugins(model)))
    with pytest.raises(UserError, match=f"no plugin at .*did you mean '{name[:-1]}"):
        choose_plugin(model, name[:-1])
    with pytest.raises(UserError, match="Conv3d has no plugin"):
        choose_plugin(nn.Conv3d(1, 1, 1), None)
    first, second = model.backbone.layer3[:2]
    second.relu, own = first.relu, second.relu
    with pytest.raises(UserError, match="relu is run 2 times"):
        run_through(model, inputs, "backbone.layer3.0.relu")
    second.relu = own
    with pytest.raises(UserError, match=r"gives values of shape .* name a module"):
        grad_cam(run_through(model, inputs, "cls_head.fc_cls"))
    weight = model.cls_head.fc_cls.weight
    before = weight.detach().clone()
    nn.init.constant_(weight, float("inf"))
    with pytest.raises(UserError, match="no finite numbers"):
        run_through(model, inputs, name)
    with torch.no_grad():
        weight.copy_(before)


def test_features_of_several_tensors_are_refused(slowfast):
    model, inputs = slowfast
    with pytest.raises(UserError, match="gives a tuple, not features"):
        run_through(model, inputs, "backbone")


def test_plugins_are_found_by_class(small):
    assert all(isinstance(p, Plugin) for p in find_plugins(small[0]).values())
    assert len(find_plugins(small[0])) == 5
