# ruff: noqa: RUF005  (an option and its value stay together)
"""train.py and test.py in this process, on the tiny dataset."""

import json
import os
import pickle

import numpy as np
import pytest
import torch
from mmcv.cnn.bricks.non_local import NonLocal3d

from polynl_mm import NonLocalBlock3d
from polynl_mm.commands import testing, training

NON_LOCAL = """
model['backbone'].update(
    non_local=((0, 1),), non_local_cfg=dict(norm_cfg=dict(type='BN3d'),
                                            mode='dot_product'))
auto_scale_lr = dict(enable=False, base_batch_size=8)
"""


class Harmful:
    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@pytest.fixture(scope="module")
def trained(tiny_config, tmp_path_factory, tool):
    """A config and the folder of its finished training."""
    folder = tmp_path_factory.mktemp("trained")
    config = tiny_config(folder / "tiny.py", epochs=1)
    work = ["--work-dir", str(folder / "run")]
    tool("train").main([str(config), *work, "--seed", "1"])
    return config, folder / "run"


@pytest.fixture
def refused(capsys):
    """Return a function that runs a tool and gives the one sentence it ends with."""

    def run(main, *argv):
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in argv])
        assert left.value.code == 2
        said = [
            x for x in capsys.readouterr().err.splitlines() if x.startswith("Error: ")
        ]
        assert len(said) == 1
        return said[0]

    return run


def test_training_leaves_checkpoints_that_load(trained):
    _, run = trained
    assert (run / "last_checkpoint").read_text() == str(run / "epoch_1.pth")
    loaded = torch.load(run / "epoch_1.pth", weights_only=False)
    assert loaded["meta"]["seed"] == 1


def test_test_writes_metrics_and_predictions(trained, tool, tmp_path):
    config, run = trained
    metrics, dump = tmp_path / "m.json", tmp_path / "d.pkl"
    tool("test").main(
        [str(config), str(run / "epoch_1.pth"), "--work-dir", str(tmp_path / "w")]
        + ["--metrics", str(metrics), "--dump", str(dump)]
    )
    assert 0 <= json.loads(metrics.read_text())["acc/top1"] <= 1
    assert len(pickle.loads(dump.read_bytes())) == 12


def test_seed_of_the_command_line_wins(tool, tiny_config, tmp_path):
    train = tool("train")
    extra = "randomness = dict(seed=3, deterministic=False)\n"
    config = tiny_config(tmp_path / "c.py", extra=extra)
    args = train.parse_args([str(config), "--seed", "4", "--deterministic"])
    cfg = training.load_config(args.config)
    training.merge_args(cfg, args)
    assert cfg.randomness == {"seed": 4, "deterministic": True}
    args = train.parse_args([str(config)])
    cfg = training.load_config(args.config)
    training.merge_args(cfg, args)
    assert cfg.randomness.seed == 3


@pytest.fixture
def kept(monkeypatch):
    """Return a function that has a command keep the runners it builds, in a list."""

    def keep(command):
        runners, build = [], command.build_runner

        def build_and_keep(cfg):
            runners.append(build(cfg))
            return runners[-1]

        monkeypatch.setattr(command, "build_runner", build_and_keep)
        return runners

    return keep


def count(model, kind):
    return sum(type(module) is kind for module in model.modules())


def test_scaled_learning_rate_and_accelerated_blocks(tool, tiny_config, tmp_path, kept):
    config = tiny_config(tmp_path / "nl.py", extra=NON_LOCAL)
    train, work = tool("train"), ["--work-dir", str(tmp_path / "w")]
    runners, options = kept(training), ["--auto-scale-lr", "--accelerate-non-local"]
    train.main([str(config), *work, "--no-validate", *options])
    (scalars,) = (tmp_path / "w").glob("*/vis_data/scalars.json")
    rates = [json.loads(line)["lr"] for line in scalars.read_text().splitlines()]
    assert rates == [pytest.approx(0.05 * 2 / 8)] * 6
    model = runners[0].model
    assert (count(model, NonLocalBlock3d), count(model, NonLocal3d)) == (1, 0)

    test, scores = tool("test"), []
    runners, checkpoint = kept(testing), str(tmp_path / "w" / "epoch_1.pth")
    for option in ([], ["--accelerate-non-local"]):
        dump = tmp_path / "d.pkl"
        test.main([str(config), checkpoint, *work, "--dump", str(dump), *option])
        samples = pickle.loads(dump.read_bytes())
        scores.append(np.stack([sample["pred_score"] for sample in samples]))
    counts = [count(runner.model, NonLocalBlock3d) for runner in runners]
    assert counts == [0, 1]
    np.testing.assert_allclose(*scores, rtol=1e-4)


def test_auto_scale_lr_needs_a_batch_size(tiny_config, tool, refused, tmp_path):
    config = tiny_config(tmp_path / "c.py")
    said = refused(tool("train").main, config, "--auto-scale-lr")
    assert "--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=...)" in said


@pytest.mark.parametrize(("option", "seed"), [([], 5), (["--diff-rank-seed"], 6)])
def test_seed_of_a_rank(tool, tiny_config, tmp_path, monkeypatch, option, seed):
    monkeypatch.setattr("mmengine.runner.utils.get_rank", lambda: 1)
    train, config = tool("train"), tiny_config(tmp_path / "c.py")
    work = ["--work-dir", str(tmp_path / "w")]
    args = train.parse_args([str(config), *work, "--seed", "5", *option])
    cfg = training.load_config(args.config)
    training.merge_args(cfg, args)
    runner = training.build_runner(cfg)
    assert runner.seed == seed and torch.initial_seed() == seed


@pytest.mark.parametrize("name", ["train", "test"])
def test_rank_that_an_old_launcher_gives(tool, monkeypatch, name):
    parse = tool(name).parse_args
    files = ["c.py", "c.pth"][: 1 + (name == "test")]
    for option in ("--local_rank=3", "--local-rank=3"):
        monkeypatch.delenv("LOCAL_RANK", raising=False)
        parse([*files, option])
        assert os.environ["LOCAL_RANK"] == "3"
    monkeypatch.setenv("LOCAL_RANK", "1")
    parse([*files, "--local-rank=3"])
    assert os.environ["LOCAL_RANK"] == "1", "torchrun's own wins"


def test_options_of_pictures(tool, tiny_config, tmp_path, refused):
    test, config = tool("test"), str(tiny_config(tmp_path / "c.py"))

    def hook(*options):
        args = test.parse_args([config, "c.pth", *options])
        cfg = testing.load_config(config)
        testing.merge_args(cfg, args)
        return cfg.default_hooks.visualization

    given = hook("--show", "--interval", "3", "--wait-time", "0.5")
    assert given.show and (given.interval, given.wait_time) == (3, 0.5)
    given = hook("--show-dir", "pictures")
    assert not given.show and (given.interval, given.out_dir) == (1, "pictures")
    for option in ("--interval", "--wait-time"):
        said = refused(test.main, config, "c.pth", option, "2")
        assert "give --show-dir or --show" in said
    said = refused(test.main, config, "c.pth", "--show-dir", "a", "--wait-time", "2")
    assert "--wait-time is of windows; give --show" in said


def test_harmful_checkpoint_is_refused_by_every_tool(
    trained, tool, refused, tmp_path, tiny_dataset
):
    config, run = trained
    marker, harmful = tmp_path / "marker", tmp_path / "harmful.pth"
    content = torch.load(run / "epoch_1.pth", weights_only=False)
    torch.save({**content, "extra": Harmful(marker)}, harmful)
    work = ["--work-dir", tmp_path / "w"]
    video = tiny_dataset / "videos" / "0.mp4"
    train = tool("train").main
    said = [
        refused(train, config, "--resume", harmful, *work),
        refused(train, config, *work, "--cfg-options", f"load_from={harmful}"),
        refused(tool("test").main, config, harmful, *work),
        refused(tool("predict").main, config, harmful, video),
    ]
    for sentence in said:
        assert "harmful.pth is refused" in sentence and "mkdir" in sentence
        assert "--trust-checkpoint" in sentence
    assert not marker.exists()


def test_checkpoint_of_another_model(trained, tool, refused, tiny_config, tmp_path):
    config, run = trained
    other = tiny_config(
        tmp_path / "other.py",
        extra="model['cls_head']['num_classes'] = 3\n"
        "model['backbone']['base_channels'] = 4\n"
        "model['cls_head']['in_channels'] = 4\n",
    )
    checkpoint = run / "epoch_1.pth"
    for name, arguments in {
        "test": (other, checkpoint),
        "predict": (other, checkpoint, "a.mp4"),
    }.items():
        said = refused(tool(name).main, *arguments)
        assert "epoch_1.pth is of another model than" in said
        assert "other.py" in said and "of another shape (such as" in said
    weights = {"nothing.weight": torch.zeros(1)}
    torch.save({"state_dict": weights}, tmp_path / "nothing.pth")
    said = refused(
        tool("train").main,
        *(config, "--work-dir", tmp_path / "w"),
        *("--cfg-options", f"load_from={tmp_path / 'nothing.pth'}"),
    )
    assert "nothing in common" in said


def test_fine_tuning_with_another_head_is_allowed(trained, tool, tiny_config, tmp_path):
    _, run = trained
    extra = "model['cls_head']['num_classes'] = 3\n"
    config = tiny_config(tmp_path / "c.py", extra=extra)
    tool("train").main(
        [str(config), "--no-validate", "--work-dir", str(tmp_path / "w")]
        + ["--cfg-options", f"load_from={run / 'epoch_1.pth'}"]
    )
    assert (tmp_path / "w" / "epoch_1.pth").is_file()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("model.backbone.type=ResNet3dSlowOnli", "did you mean 'ResNet3dSlowOnly'"),
        ("model.cls_head.numclasses=5", "takes no argument 'numclasses'"),
        ("optim_wrapper.optimizer.type=SDG", "unknown optimizer 'SDG'; did .* 'SGD'"),
        ("optim_wraper.optimizer.lr=1", "has no 'optim_wraper'; .* 'optim_wrapper'"),
        ("train_dataloader.dataset.ann_file=no.txt", r"no\.txt .*does not exist"),
        ("train_dataloader.dataset.data_prefix.video=no", "video folder no "),
        ("train_dataloader.dataset.pipeline.9.type=A", "Index 9 exceeds"),
        ("load_from=no.pth", r"checkpoint no\.pth does not exist"),
    ],
)
def test_mistakes_in_the_config(trained, tool, refused, tmp_path, options, sentence):
    import re

    config, _ = trained
    work = ("--work-dir", tmp_path / "w")
    said = refused(tool("train").main, config, *work, "--cfg-options", options)
    assert re.search(sentence, said), said


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("", "is empty: it lists no video"), ("0.mp4 0\n1.mp4 a\n", "line 2 has the lab")],
)
def test_unfit_annotation_files(
    trained, tool, refused, tmp_path, tiny_dataset, text, sentence
):
    config, run = trained
    (tmp_path / "list.txt").write_text(text)
    option = f"test_dataloader.dataset.ann_file={tmp_path / 'list.txt'}"
    said = refused(
        tool("test").main, config, run / "epoch_1.pth", "--cfg-options", option
    )
    assert f"{tmp_path / 'list.txt'}" in said and sentence in said


def test_unfit_arguments(trained, tool, refused, tmp_path, capsys):
    config, run = trained
    train, test = tool("train").main, tool("test").main
    near = str(config).replace("tiny.py", "tyny.py")
    assert "does not exist" in refused(train, near)
    said = refused(
        train, "mmaction::tsn_imagenet-pretrained-r50_8xb32-1x1x3-100e_k400-rgb"
    )
    assert "did you mean mmaction::recognition" in said
    assert "torch" not in refused(test, config, tmp_path / "no.pth")
    assert "takes a .pkl" in refused(test, config, run / "epoch_1.pth", "--dump", "a")
    with pytest.raises(SystemExit) as left:
        train([str(config), "--cfg-options", "novalue"])
    assert left.value.code == 2
    assert "expected key=value pairs, but got 'novalue'" in capsys.readouterr().err
