"""Converted weights of PySlowFast give the outputs of the module they come from."""

import os
import pickle

import numpy as np
import pytest
import torch
from closeness import assert_close
from mmengine.config import Config
from pyslowfast_source import PySlowFast, randomize

from polynl_mm.convert.caffe2 import pyslowfast_name, read_caffe2
from polynl_mm.convert.pyslowfast import convert_weights, fit_weights, read_pyslowfast
from polynl_mm.convert.pyslowfast_model import describe_model
from polynl_mm.recognizers.building import build_recognizer
from polynl_mm.stack.safe_checkpoints import CheckpointError
from polynl_mm.user_errors import UserError

FIVE = ((), (1,), (0, 2), ())
I3D = [[5], [[3]], [[3, 1]], [[3, 1, 3]], [[1]]]
SLOW = [[1], [[1]], [[1, 1]], [[3, 3, 3]], [[3]]]
C2D = [[1], [[1]], [[1, 1]], [[1, 1, 1]], [[1]]]
SLOWFAST = [
    [1, 5],
    [[1], [3]],
    [[1, 1], [3, 3]],
    [[3, 3, 3], [3, 3, 3]],
    [[3], [3]],
]
# name: (arguments of the source, MODEL.ARCH)
MODELS = {
    "i3d_softmax": (dict(temporal=I3D, places=FIVE, pool_time=True), "i3d"),
    "slow_dot": (dict(temporal=SLOW, places=FIVE, mode="dot_product"), "slow"),
    "slow_norm_by_its_new_name": (
        dict(temporal=SLOW, places=FIVE, norm_name="norm"),
        "slow",
    ),
    "slow_no_norm": (dict(temporal=SLOW, places=FIVE, norm_name=None), "slow"),
    "c2d_no_block": (dict(temporal=C2D, pool_time=True), "c2d"),
    "slowfast_dot": (
        dict(
            temporal=SLOWFAST,
            widths=(16, 4),
            places=FIVE,
            mode="dot_product",
            fusion_kernel=7,
        ),
        "slowfast",
    ),
    "c2d_unpooled_by_its_model": (
        dict(temporal=C2D, places=FIVE),
        "c2d\n  MODEL_NAME: ResNet_nopool",
    ),
    "i3d_unpooled": (dict(temporal=I3D, places=FIVE), "slow_i3d"),
    "c2d_unpooled": (dict(temporal=C2D, places=FIVE), "slow_c2d"),
    "i3d_pooled": (
        dict(temporal=I3D, places=FIVE, pool=(1, 2, 2), pool_time=True),
        "i3d",
    ),
    "slow_pooled_in_time_by_groups": (
        dict(temporal=SLOW, places=FIVE, pool=(2, 1, 2), groups=2),
        "slow",
    ),
    "slow_dot_by_groups": (
        dict(temporal=SLOW, places=FIVE, mode="dot_product", groups=4),
        "slow",
    ),
}


def settings_of(arguments, arch):
    """What PySlowFast stores of such a model, as YAML of its config."""
    pool = [[list(arguments.get("pool", (1, 1, 1)))] * 2] * 4
    group = [[arguments.get("groups", 1)] * 2] * 4
    mode = arguments.get("mode", "softmax")
    return (
        f"MODEL:\n  ARCH: {arch}\n  DROPOUT_RATE: 0.5\n"
        f"NONLOCAL:\n  INSTANTIATION: {mode}\n  POOL: {pool}\n"
        f"  GROUP: {group}\n"
        f"SLOWFAST:\n  ALPHA: 4\n"
    )


def save(path, module, text=None):
    content = dict(model_state=module.state_dict(), epoch=3, optimizer_state={})
    torch.save(dict(content, cfg=text) if text else content, path)
    return str(path)


def logits(model, clip):
    with torch.no_grad():
        return model(clip.unsqueeze(1), mode="tensor", stage="head")


@pytest.mark.parametrize("name", MODELS)
def test_outputs_are_those_of_the_source(name, tmp_path):
    arguments, arch = MODELS[name]
    module = randomize(PySlowFast(**arguments))
    file = save(tmp_path / "nln.pyth", module, settings_of(arguments, arch))
    source = read_pyslowfast(file)
    described, assumed = describe_model(source)
    assert assumed == []
    model = build_recognizer(Config(dict(model=described)), name)
    weights, differences = fit_weights(convert_weights(source), model, name)
    assert differences == []
    model.load_state_dict(weights)
    clip = torch.randn(2, 3, 8, 32, 32, generator=torch.Generator().manual_seed(1))
    clips = (
        [clip] if len(arguments.get("widths", "1")) == 1 else [clip[:, :, ::4], clip]
    )
    with torch.no_grad():
        expected = module(clips)
    assert expected.std() > 0.05  # not all the same
    found = logits(model, clip)
    assert_close(found, expected, name)


def caffe2_name(key):
    """Caffe2's name of a PySlowFast weight, for single-pathway networks."""
    stem, _, kind = key.rpartition(".")
    is_norm = stem.endswith(("bn", "norm"))
    kinds = dict(weight="s" if is_norm else "w", bias="b", running_mean="rm")
    kind = dict(kinds, running_var="riv")[kind]
    parts = stem.split(".")
    if parts[0] == "head":
        return f"pred_{kind}"
    if parts[0] == "s1":
        return f"{'res_conv1_bn' if is_norm else 'conv1'}_{kind}"
    stage, place = parts[0][1:], parts[1].removeprefix("pathway0_")
    if place.startswith("nonlocal"):
        layer = parts[2].removeprefix("conv_")
        return f"nonlocal_conv{stage}_{place.removeprefix('nonlocal')}_{layer}_{kind}"
    layer = "".join(parts[2:])
    return f"res{stage}_{place.removeprefix('res')}_{layer}_{kind}"


@pytest.mark.parametrize("protocol", [2, 4])
def test_caffe2_file_of_the_model_zoo(tmp_path, protocol):
    module = randomize(PySlowFast(SLOW, places=FIVE))
    blobs = {
        caffe2_name(key): value.numpy()
        for key, value in module.state_dict().items()
        if "num_batches" not in key
    }
    blobs["conv1_w_momentum"] = np.zeros(1, np.float32)
    blobs["lr"] = np.ones(1, np.float32)
    file = tmp_path / "SLOW_NLN.pkl"
    file.write_bytes(pickle.dumps({"blobs": blobs}, protocol))
    source = read_pyslowfast(str(file))
    assert sorted(source.others) == ["conv1_w_momentum", "lr"]
    expected = module.state_dict()
    assert set(source.weights) == {k for k in expected if "num_batches" not in k}
    for key, value in source.weights.items():
        assert torch.equal(value, expected[key]), key


def test_caffe2_names_of_the_fast_pathway():
    assert pyslowfast_name("t_res_conv1_bn_rm") == "s1.pathway1_stem.bn.running_mean"
    assert pyslowfast_name("t_pool1_subsample_w") == "s1_fuse.conv_f2s.weight"
    name = "t_res3_3_branch2c_bn_subsample_bn_riv"
    assert pyslowfast_name(name) == "s3_fuse.bn.running_var"
    name = "t_res4_5_branch2c_bn_s"
    assert pyslowfast_name(name) == "s4.pathway1_res5.branch2.c_bn.weight"
    assert pyslowfast_name("t_res2_0_branch1_w") == "s2.pathway1_res0.branch1.weight"


class Harmful:
    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def test_harmful_files_do_nothing(tmp_path):
    marker, file = tmp_path / "marker", tmp_path / "bad.pkl"
    file.write_bytes(pickle.dumps({"blobs": {"conv1_w": Harmful(marker)}}))
    with pytest.raises(CheckpointError, match=r"bad\.pkl is refused.*mkdir"):
        read_caffe2(file)
    objects = np.array([Harmful(marker)], dtype=object)
    file.write_bytes(pickle.dumps({"blobs": {"conv1_w": objects}}))
    with pytest.raises(CheckpointError, match="refused"):
        read_caffe2(file)
    torch.save({"model_state": Harmful(marker)}, tmp_path / "bad.pyth")
    with pytest.raises(CheckpointError, match="refused"):
        read_pyslowfast(str(tmp_path / "bad.pyth"))
    assert not marker.exists()


def test_damaged_and_other_files(tmp_path):
    file = tmp_path / "x.pkl"
    for content in (b"", b"text", pickle.dumps({"blobs": {}})[:-3], pickle.dumps([1])):
        file.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"x\.pkl"):
            read_caffe2(file)
    torch.save({"model_state": {"blocks.0.attn.qkv.weight": torch.zeros(1)}}, file)
    os.rename(file, tmp_path / "mvit.pyth")
    with pytest.raises(CheckpointError, match="no ResNet of PySlowFast"):
        convert_weights(read_pyslowfast(str(tmp_path / "mvit.pyth")))


def test_what_the_blocks_here_have_not_is_said(tmp_path):
    module = PySlowFast(SLOW, places=FIVE)
    path = tmp_path / "nln.yaml"
    file = save(tmp_path / "nln.pyth", module, settings_of({}, "slow"))
    for text, sentence in (
        ("NONLOCAL: {INSTANTIATION: gauss}", "'gauss'"),
        ("MODEL: {ARCH: x3d}", "x3d"),
        ("RESNET: {SPATIAL_STRIDES: 3}", "form"),
        ("MODEL: " + "[" * 5000, r"nln\.yaml is no YAML"),
        ("MODEL: {ARCH: " + "1" * 5000 + "}", r"nln\.yaml is no YAML"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=sentence):
            describe_model(read_pyslowfast(file, str(path)))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match=r"nln\.yaml is no regular file"):
        read_pyslowfast(file, str(path))


def test_assumptions_are_said(tmp_path):
    module = PySlowFast(SLOW, places=FIVE)
    source = read_pyslowfast(save(tmp_path / "nln.pyth", module))
    described, assumed = describe_model(source)
    assert [sentence.split()[0] for sentence in assumed] == [
        "MODEL.ARCH",
        "NONLOCAL.INSTANTIATION",
        "NONLOCAL.POOL",
        "without",
    ]
    cfg = described["backbone"]["plugins"][0]["cfg"]
    assert cfg["mode"] == "dot_product" and cfg["pool_first"]
    assert described["backbone"]["plugins"][0]["blocks"] == FIVE


def test_blocks_of_mmcv_get_the_weights_with_a_note(tmp_path):
    """MMAction2's own non-local configs pool after projecting."""
    module = randomize(PySlowFast(SLOW, places=((), (1,), (), ())))
    source = read_pyslowfast(save(tmp_path / "nln.pyth", module))
    described, _ = describe_model(source)
    backbone = described["backbone"]
    for key in ("of", "plugins"):
        del backbone[key]
    non_local = dict(sub_sample=True, norm_cfg=dict(type="BN3d"), mode="dot_product")
    backbone.update(
        type="ResNet3d",
        non_local=((0,), (0, 1), (0, 0, 0), (0,)),
        non_local_cfg=non_local,
    )
    model = build_recognizer(Config(dict(model=described)), "mmcv")
    weights, differences = fit_weights(convert_weights(source), model, "mmcv")
    assert len(differences) == 1 and "pool_first=True" in differences[0]
    key = "backbone.layer2.1.non_local_block.phi.0.conv.weight"
    expected = module.s3.pathway0_nonlocal1.conv_phi.weight
    assert torch.equal(weights[key], expected)


def test_unfit_model_is_refused(tmp_path):
    source = read_pyslowfast(save(tmp_path / "a.pyth", PySlowFast(SLOW)))
    other = read_pyslowfast(save(tmp_path / "b.pyth", PySlowFast(SLOW, widths=(4,))))
    model = build_recognizer(Config(dict(model=describe_model(other)[0])), "b")
    with pytest.raises(CheckpointError, match="not those of the model of b"):
        fit_weights(convert_weights(source), model, "b")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ("DETECTION:\n  ENABLE: true\n", "DETECTION.ENABLE is set: .* people in boxes"),
        ("MODEL:\n  MODEL_NAME: MViT\n", "MODEL_NAME is one of .* not 'MViT'"),
        ("MODEL:\n  HEAD_ACT: tanh\n", "HEAD_ACT is one of .* not 'tanh'"),
        ("MODEL:\n  ARCH: slow_x\n", "ARCH 'slow_x' of PySlowFast is no ResNet"),
    ],
)
def test_settings_of_other_networks_are_refused(tmp_path, settings, sentence):
    module = randomize(PySlowFast(SLOW, places=FIVE))
    source = read_pyslowfast(save(tmp_path / "a.pyth", module, settings))
    with pytest.raises(UserError, match=sentence):
        describe_model(source)


@pytest.mark.parametrize(
    ("activation", "average", "notes"),
    [("softmax", "prob", 0), ("none", "score", 0), ("sigmoid", "score", 1)],
)
def test_activation_of_the_head(tmp_path, activation, average, notes):
    module = randomize(PySlowFast(SLOW))
    settings = f"MODEL:\n  ARCH: slow\n  HEAD_ACT: {activation}\n"
    source = read_pyslowfast(save(tmp_path / "a.pyth", module, settings))
    model, assumed = describe_model(source)
    assert model["cls_head"]["average_clips"] == average
    assert len(assumed) == notes


def test_what_is_assumed_without_a_config_is_said(tmp_path):
    module = randomize(PySlowFast(SLOW))
    source = read_pyslowfast(save(tmp_path / "a.pyth", module))
    said = " ".join(describe_model(source)[1])
    for key in ("SPATIAL_STRIDES", "SPATIAL_DILATIONS", "MEAN", "REVERSE_INPUT_CH"):
        assert key in said


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old_format"])
def test_torch_file_of_any_suffix(tmp_path, zipped):
    module = randomize(PySlowFast(SLOW))
    content = dict(model_state=module.state_dict())
    file = tmp_path / "a.pkl"
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    assert set(read_pyslowfast(str(file)).weights) == set(module.state_dict())
