"""Scores do not depend on how many views go through the network at once."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.registry import init_default_scope
from small_backbones import BACKBONES

from polynl_mm.stack.testing_views import BoundedViewsHook, bound_testing_views
from polynl_mm.user_errors import UserError

# name: (width of the features, head, whether frames are samples)
HEADS = {
    "ResNet3dSlowOnly": (256, "I3DHead", False),
    "ResNet3dSlowFast": (768, "SlowFastHead", False),
    "ResNetTSM": (2048, "TSMHead", True),
    "ResNet": (2048, "TSNHead", True),
}


def build_recognizer(name, **test_cfg):
    from mmaction.registry import MODELS
    from mmaction.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    init_default_scope("mmaction")
    width, head, frames = HEADS[name]
    arguments, _, placement = BACKBONES[name]
    plugin = dict(cfg=dict(type="NonLocalBlock3d", zeros_init=False), **placement)
    torch.manual_seed(0)
    return MODELS.build(
        dict(
            type="Recognizer2D" if frames else "Recognizer3D",
            backbone=dict(type="WithPlugins", of=name, plugins=[plugin], **arguments),
            cls_head=dict(
                type=head, in_channels=width, num_classes=5, average_clips="prob"
            ),
            data_preprocessor=dict(
                type="ActionDataPreprocessor",
                mean=[120.0, 110.0, 100.0],
                std=[50.0, 60.0, 70.0],
                to_rgb=True,
                format_shape="NCHW" if frames else "NCTHW",
            ),
            test_cfg=test_cfg or None,
        )
    ).eval()


def make_batch(name, videos=1, views=3):
    from mmaction.structures import ActionDataSample

    torch.manual_seed(1)
    shape = (views * 8, 3, 32, 32) if HEADS[name][2] else (views, 3, 8, 32, 32)
    return dict(
        inputs=[torch.randint(256, shape, dtype=torch.uint8) for _ in range(videos)],
        data_samples=[ActionDataSample().set_gt_label(0) for _ in range(videos)],
    )


@torch.no_grad()
def scores_and_sizes(recognizer, batch):
    """Return the scores, and how many samples the first layer saw each time."""
    sizes = []
    layer = next(m for m in recognizer.modules() if isinstance(m, torch.nn.ReLU))
    hook = layer.register_forward_hook(lambda _, args, out: sizes.append(len(out)))
    results = recognizer.test_step(batch)
    hook.remove()
    return torch.stack([each.pred_score for each in results]), sizes


@pytest.mark.parametrize("name", HEADS)
def test_scores_do_not_depend_on_the_bound(name):
    recognizer = build_recognizer(name)
    clip = 8 if HEADS[name][2] else 1
    expected, sizes = scores_and_sizes(recognizer, make_batch(name, videos=2))
    assert max(sizes) == 6 * clip
    assert expected.std() > 1e-5, "all scores are alike: the comparison is empty"
    bound_testing_views(recognizer, 4 * clip + clip // 2)
    scores, sizes = scores_and_sizes(recognizer, make_batch(name, videos=2))
    assert max(sizes) == 4 * clip
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-6)


def test_the_bound_can_be_taken_back():
    recognizer = build_recognizer("ResNet3dSlowOnly", max_testing_views=2)
    undo = bound_testing_views(recognizer)
    assert "max_testing_views" not in recognizer.test_cfg
    undo()
    assert recognizer.test_cfg == dict(max_testing_views=2)
    assert not {"forward"} & set(vars(recognizer.backbone))
    assert not {"forward"} & set(vars(recognizer.data_preprocessor))


def test_normalised_views_are_never_together(monkeypatch):
    recognizer = build_recognizer("ResNet3dSlowOnly")
    bound_testing_views(recognizer, 2)
    sizes = []
    original = recognizer.data_preprocessor.preprocess

    def preprocess(inputs, *rest):
        sizes.append(inputs[0].shape[0])
        return original(inputs, *rest)

    monkeypatch.setattr(recognizer.data_preprocessor, "preprocess", preprocess)
    scores_and_sizes(recognizer, make_batch("ResNet3dSlowOnly", videos=2))
    assert sizes == [2] * 3


@pytest.mark.parametrize(
    ("videos", "views", "test_cfg", "most"),
    [
        (1, 6, {}, 4),
        (6, 1, {}, 6),  # the batch size that the config asks for
        (1, 6, dict(max_testing_views=3), 3),
        (2, 3, dict(max_testing_views=5), 5),  # MMAction2 allows one video only
    ],
)
def test_defaults(videos, views, test_cfg, most):
    recognizer = build_recognizer("ResNet3dSlowOnly", **test_cfg)
    bound_testing_views(recognizer)
    batch = make_batch("ResNet3dSlowOnly", videos, views)
    assert max(scores_and_sizes(recognizer, batch)[1]) == most


def test_training_is_not_affected():
    recognizer = build_recognizer("ResNet3dSlowOnly").train()
    bound_testing_views(recognizer, 1)
    batch = make_batch("ResNet3dSlowOnly", videos=4, views=1)
    data = recognizer.data_preprocessor(batch, training=True)
    assert data["inputs"].dtype == torch.float32
    loss = recognizer(**data, mode="loss")["loss_cls"]
    loss.backward()
    assert recognizer.backbone.conv1.conv.weight.grad.abs().sum() > 0


def test_unfit_bounds():
    recognizer = build_recognizer("ResNetTSM")
    with pytest.raises(UserError, match="clips have 8; give a multiple of 8"):
        bound_testing_views(recognizer, 4)
    for bad in (-1, 2.5, "4"):
        with pytest.raises(UserError, match="whole number of views"):
            bound_testing_views(recognizer, bad)
    with pytest.raises(UserError, match="not for Linear"):
        bound_testing_views(torch.nn.Linear(1, 1), 4)
    bound_testing_views(torch.nn.Linear(1, 1))


@pytest.mark.parametrize("name", ["ResNet3dSlowOnly", "ResNetTSM"])
@torch.no_grad()
def test_bound_of_the_config_holds_in_validation(name):
    """MMAction2's own bound takes a batch of one, and no 2D recognizer."""
    plain = build_recognizer(name)
    bounded = build_recognizer(name, max_testing_views=8)
    bounded.load_state_dict(plain.state_dict())
    runner, hook = SimpleNamespace(model=bounded), BoundedViewsHook()
    hook.before_train(runner)
    hook.before_val(runner)
    found = bounded.val_step(make_batch(name, videos=2))
    hook.after_val(runner)
    for is_, should in zip(found, plain.val_step(make_batch(name, 2)), strict=True):
        torch.testing.assert_close(is_.pred_score, should.pred_score)
    assert bounded.test_cfg == dict(max_testing_views=8)


def test_unfit_bound_is_met_before_training():
    runner = SimpleNamespace(model=build_recognizer("ResNetTSM", max_testing_views=3))
    with pytest.raises(UserError, match="give a multiple of 8"):
        BoundedViewsHook().before_train(runner)
