"""ONNX files give the scores of the recognizers they were written from."""

import numpy as np
import pytest
import torch
from mmengine.config import Config

from polynl_mm.deployment import onnx_export
from polynl_mm.deployment.formulas import with_formulas
from polynl_mm.deployment.onnx_export import Scores, check_view, export_onnx
from polynl_mm.plugins.position_encoding import SinePositions
from polynl_mm.recognizers.building import build_recognizer
from polynl_mm.user_errors import UserError

PREPROCESSOR = dict(
    type="ActionDataPreprocessor",
    mean=[110.0, 120.0, 130.0],
    std=[50.0, 60.0, 70.0],
    to_rgb=True,
    format_shape="NCTHW",
)


def recognizer_of(*cfgs):
    """A one-stage SlowOnly with the given plugins, none of them the identity."""
    plugins = [dict(cfg=dict(cfg, zero_init=False), blocks="last") for cfg in cfgs]
    backbone = dict(
        type="WithPlugins",
        of="ResNet3dSlowOnly",
        plugins=plugins,
        depth=18,
        pretrained=None,
        lateral=False,
        num_stages=1,
        base_channels=8,
        spatial_strides=(1,),
        temporal_strides=(1,),
        dilations=(1,),
        out_indices=(0,),
        inflate=(0,),
        conv1_kernel=(1, 3, 3),
        conv1_stride_t=1,
        pool1_stride_t=1,
    )
    head = dict(type="I3DHead", num_classes=5, in_channels=8, average_clips="prob")
    model = dict(
        type="Recognizer3D",
        backbone=backbone,
        cls_head=head,
        data_preprocessor=PREPROCESSOR,
        test_cfg=dict(max_testing_views=4),
    )
    torch.manual_seed(0)
    recognizer = build_recognizer(Config(dict(model=model)), "tiny")
    for name, parameter in recognizer.named_parameters():
        if "fc_cls" in name:
            torch.nn.init.normal_(parameter)
    return recognizer


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A recognizer with blocks of every form, and its file."""
    modes = ("embedded_gaussian", "dot_product", "concatenation")
    blocks = [dict(type="NonLocalBlock3d", mode=mode, std=0.3) for mode in modes]
    blocks[0]["sub_sample"] = True
    placed = [dict(type=kind, positions="sine") for kind in ("PolyNL3d", "PyramidNL3d")]
    recognizer = recognizer_of(*placed, *blocks)
    for block in recognizer.modules():
        if isinstance(block, SinePositions):
            torch.nn.init.normal_(block.weight)
    file = tmp_path_factory.mktemp("onnx") / "model.onnx"
    checks = export_onnx(recognizer, (3, 4, 16, 16), file, normalize=True)
    return recognizer, file, checks


def run(file, views):
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return session.run(None, {"views": views.numpy()})[0]


def test_scores_are_those_of_the_test_step(exported):
    """Of pixels, at a batch and a number of views that the export did not see."""
    from mmaction.structures import ActionDataSample

    recognizer, file, checks = exported
    assert max(check.difference for check in checks) < 1e-4
    generator = torch.Generator().manual_seed(3)
    views = torch.randint(0, 256, (2, 3, 3, 4, 16, 16), generator=generator).float()
    # max_testing_views, which is kept, takes one clip at a time.
    expected = []
    for clip in views:
        data = dict(inputs=[clip], data_samples=[ActionDataSample()])
        with torch.no_grad():
            expected.append(recognizer.test_step(data)[0].pred_score.numpy())
    expected = np.stack(expected)
    assert np.ptp(expected, axis=1).min() > 0.05
    np.testing.assert_allclose(run(file, views), expected, rtol=1e-4, atol=1e-6)
    assert recognizer.test_cfg["max_testing_views"] == 4


def test_file_that_differs_is_not_kept(tmp_path, monkeypatch):
    """A formula gone wrong must not leave a file."""

    def wrong(model):
        model = with_formulas(model)
        model.recognizer.cls_head.fc_cls.bias.data += torch.arange(5.0)
        return model

    monkeypatch.setattr(onnx_export, "with_formulas", wrong)
    with pytest.raises(UserError, match=r"differ .* is not written"):
        export_onnx(recognizer_of(), (3, 2, 8, 8), tmp_path / "x.onnx", logits=True)
    assert list(tmp_path.iterdir()) == []


def test_model_without_finite_scores_is_not_exported(tmp_path):
    recognizer = recognizer_of()
    recognizer.cls_head.fc_cls.bias.data.fill_(torch.nan)
    with pytest.raises(UserError, match="not finite"):
        export_onnx(recognizer, (3, 2, 8, 8), tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(onnx_export, "PACKAGES", ("onnx", "no_such_runtime"))
    with pytest.raises(ImportError, match=r"no_such_runtime.*pip install onnx no_such"):
        onnx_export.require_packages()


def test_unfit_shapes_and_models():
    recognizer = recognizer_of()
    with pytest.raises(UserError, match=r"Recognizer3D is 3 T H W, .* not 8 3 224 224"):
        check_view(recognizer, (8, 3, 224, 224))
    with pytest.raises(UserError, match="config has a Linear"):
        Scores(torch.nn.Linear(1, 1))
    recognizer.data_preprocessor = torch.nn.Identity()
    with pytest.raises(UserError, match="--normalize needs"):
        Scores(recognizer, normalize=True)
