"""The tools that convert, publish and export, as a user runs them."""

import numpy as np
import pytest
import torch
from pyslowfast_source import PySlowFast, randomize

from polynl_mm.recognizers.building import build_recognizer
from polynl_mm.recognizers.configs import load_config
from polynl_mm.stack import TRUST_OPTION, safe_checkpoints

NON_LOCAL = """
model['backbone'].update(
    non_local=((0, 1),), non_local_cfg=dict(norm_cfg=dict(type='BN3d'),
                                            mode='dot_product'))
"""
POLY = """
model['backbone'].update(
    type='WithPlugins', of='ResNet3dSlowOnly', plugins=[
        dict(cfg=dict(type='PolyNL3d', reduction=2), blocks='last')])
"""


def save_model(config, path):
    """Save the untrained model of a config, with scores that differ."""
    torch.manual_seed(0)
    model = build_recognizer(load_config(str(config)), str(config))
    torch.nn.init.normal_(model.cls_head.fc_cls.weight)
    torch.save({"state_dict": model.state_dict(), "optimizer": {}}, path)
    return model


@pytest.fixture
def refused(capsys):
    """Return a function that runs a tool and gives the one sentence it ends with."""

    def run(main, *argv):
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in argv])
        assert left.value.code == 2
        said = capsys.readouterr().err.splitlines()
        said = [line for line in said if line.startswith("Error: ")]
        assert len(said) == 1
        return said[0]

    return run


def test_training_starts_from_a_non_local_checkpoint(
    tool, tiny_config, tmp_path, capsys
):
    source = save_model(
        tiny_config(tmp_path / "nl.py", extra=NON_LOCAL), tmp_path / "nl.pth"
    )
    config, start = tiny_config(tmp_path / "poly.py", extra=POLY), tmp_path / "s.pth"
    convert = tool("convert/non_local_to_polynl").main
    convert([str(tmp_path / "nl.pth"), str(start), "--config", str(config)])
    said = capsys.readouterr().out
    assert "backbone.layer1.1.poly_nl: theta <- g, phi <- phi, g <- theta" in said
    assert "weights taken over by 1 of 1 blocks" in said
    options = [f"load_from={start}", "optim_wrapper.optimizer.lr=0.0"]
    run = ["--no-validate", "--work-dir", str(tmp_path / "w")]
    tool("train").main([str(config), *run, "--cfg-options", *options])
    trained = torch.load(tmp_path / "w" / "epoch_1.pth", weights_only=False)
    weights, given = trained["state_dict"], source.state_dict()
    block = source.backbone.layer1[1].non_local_block
    key = "backbone.layer1.1.poly_nl.g.weight"
    assert torch.equal(weights[key], block.theta.conv.weight)
    assert weights["backbone.layer1.1.poly_nl.alpha"] == 0
    key = "backbone.layer1.0.conv1.conv.weight"
    assert torch.equal(weights[key], given[key])


def test_pyslowfast_weights_and_their_model(tool, tmp_path, capsys, refused):
    temporal = [[1], [[1]], [[1, 1]], [[3, 3, 3]], [[3]]]
    module = randomize(PySlowFast(temporal, places=((), (1,), (0, 2), ())))
    source, target = tmp_path / "nln.pyth", tmp_path / "nln.pth"
    torch.save({"model_state": module.state_dict()}, source)
    yaml, config = tmp_path / "nln.yaml", tmp_path / "model.py"
    pool = [[[1, 1, 1]]] * 4
    yaml.write_text(
        f"MODEL: {{ARCH: slow}}\nNONLOCAL: {{INSTANTIATION: softmax, POOL: {pool}}}"
    )
    main = tool("convert/pyslowfast").main
    arguments = ["--yaml", str(yaml), "--model-config", str(config)]
    main([str(source), str(target), *arguments])
    said = capsys.readouterr().out
    assert "3 non-local blocks" in said and "Note:" not in said
    model = build_recognizer(load_config(str(config)), "model.py")
    model.load_state_dict(torch.load(target, weights_only=True)["state_dict"])
    clip = torch.randn(1, 3, 4, 32, 32)
    with torch.no_grad():
        found = model(clip.unsqueeze(1), mode="tensor", stage="head")
        torch.testing.assert_close(found, module([clip]), rtol=1e-5, atol=1e-5)
    main([str(source), str(target), "--config", str(config)])
    said = refused(main, source, target, "--yaml", tmp_path / "no.yaml")
    assert "no.yaml does not exist" in said
    assert "writes a .py" in refused(main, source, target, "--model-config", "a.txt")


def test_alpha_of_blocks_that_take_weights_over(tool, tiny_config, tmp_path):
    save_model(tiny_config(tmp_path / "nl.py", extra=NON_LOCAL), tmp_path / "nl.pth")
    main, start = tool("convert/non_local_to_polynl").main, tmp_path / "s.pth"
    for options, alpha in ([], 0), (["--alpha", "0.25"], 0.25):
        main([str(tmp_path / "nl.pth"), str(start), *options])
        weights = torch.load(start, weights_only=True)["state_dict"]
        assert weights["backbone.layer1.1.poly_nl.alpha"] == alpha


def test_publishing_without_the_config(tool, tmp_path):
    meta = dict(cfg="data_root = '/home/me'", epoch=3)
    source = tmp_path / "epoch_3.pth"
    torch.save({"state_dict": {"weight": torch.ones(1)}, "meta": meta}, source)
    main, kept = tool("deployment/publish_model").main, {}
    for name, options in ("with", []), ("without", ["--drop-config"]):
        main([str(source), str(tmp_path / f"{name}.pth"), *options])
        (published,) = tmp_path.glob(f"{name}_*.pth")
        kept[name] = torch.load(published, weights_only=True)["meta"]
    assert kept["with"]["cfg"] == meta["cfg"] and "cfg" not in kept["without"]
    assert kept["without"]["epoch"] == 3


@pytest.mark.parametrize("name", ["non_local_to_polynl", "pyslowfast"])
def test_changes_of_no_config_are_refused(tool, refused, name):
    change = ["--cfg-options", "model.cls_head.num_classes=3"]
    said = refused(tool(f"convert/{name}").main, "a.pth", "b.pth", *change)
    assert "--cfg-options changes the config of --config; give that, too" in said


class Made:
    """Something that no checkpoint of a training has."""


def test_trusted_checkpoint_is_published(tool, tmp_path, refused):
    source, target = str(tmp_path / "odd.pth"), str(tmp_path / "o.pth")
    weights = {"weight": torch.ones(1)}
    torch.save({"state_dict": weights, "made": Made()}, source)
    main = tool("deployment/publish_model").main
    assert "odd.pth is refused" in refused(main, source, target)
    main([source, target, "--trust-checkpoint"])
    assert len(list(tmp_path.glob("o_*.pth"))) == 1


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("train", ["c.py"]),
        ("test", ["c.py", "c.pth"]),
        ("predict", ["c.py", "c.pth", "a.mp4"]),
        ("predict_timeline", ["c.py", "c.pth", "a.mp4", "--window", "1"]),
        ("extract_features", ["c.py", "c.pth", "list.txt", "--window", "1"]),
        ("visualizations/grad_cam", ["c.py", "c.pth", "a.mp4", "--module", "a"]),
        ("visualizations/influence", ["c.py", "c.pth", "a.mp4"]),
        ("convert/non_local_to_polynl", ["a.pth", "b.pth"]),
        ("convert/pyslowfast", ["a.pyth", "b.pth"]),
        ("deployment/publish_model", ["a.pth", "b.pth"]),
        (
            "deployment/export_onnx",
            ["c.py", "c.pth", "--shape", "3", "8", "32", "32", "--out", "a.onnx"],
        ),
    ],
)
def test_every_tool_can_be_told_to_trust(tool, monkeypatch, tmp_path, name, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.mp4").write_bytes(b"of no codec")
    (tmp_path / "list.txt").write_text("a.mp4 0\n")
    for options in [], [TRUST_OPTION]:
        with pytest.raises(SystemExit):  # there is no config and no checkpoint
            tool(name).main([*arguments, *options])
        assert safe_checkpoints._trusting == bool(options)


def test_export_and_publish(tool, tiny_config, tmp_path, capsys, refused):
    import onnx
    import onnxruntime

    config = tiny_config(tmp_path / "poly.py", extra=POLY)
    checkpoint, file = tmp_path / "poly.pth", tmp_path / "poly.onnx"
    model = save_model(config, checkpoint)
    tool("deployment/publish_model").main([str(checkpoint), str(tmp_path / "m.pth")])
    said = capsys.readouterr().out
    assert "Left out: optimizer" in said
    (published,) = tmp_path.glob("m_*.pth")
    assert str(published) in said
    main = tool("deployment/export_onnx").main
    shape = ["--shape", "3", "4", "32", "32"]
    options = ["--out", str(file), "--logits", "--opset", "19"]
    main([str(config), str(published), *shape, *options])
    assert [entry.version for entry in onnx.load(file).opset_import] == [19]
    said = capsys.readouterr().out
    assert "onnxruntime differs by" in said and "at 3 x 1 x 3 x 4 x 32 x 32" in said
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    views = torch.randn(5, 1, 3, 4, 32, 32)
    with torch.no_grad():
        expected = model(views, mode="tensor", stage="head").numpy()
    (found,) = session.run(None, {"views": views.numpy()})
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    wrong = ["--shape", 4, 3, 32, 32, "--out", file]
    assert "is 3 T H W" in refused(main, config, published, *wrong)
    # torch writes a later version than one that it cannot write.
    options = ["--out", tmp_path / "old.onnx", "--opset", 11]
    said = refused(main, config, published, *shape, *options)
    assert "--opset 11: torch cannot write" in said and "would write 18" in said
    assert not (tmp_path / "old.onnx").exists()
    other = tiny_config(tmp_path / "other.py")
    said = refused(main, other, published, *shape, "--out", file)
    assert "is of another model than" in said
    said = refused(main, config, published, *shape, "--out", tmp_path / "a.pb")
    assert "takes a .onnx file" in said
