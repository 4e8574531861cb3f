"""Values of a config that cannot work: one sentence each, before an epoch is spent."""

import re
import shutil
from importlib.util import find_spec

import pytest
import torch

from polynl_mm.recognizers import config_values
from polynl_mm.recognizers.config_values import compare_schedules
from polynl_mm.recognizers.configs import load_config
from polynl_mm.recognizers.model_match import check_complete
from polynl_mm.user_errors import UserError

LOADER = "train_dataloader"
SLOWFAST = "model.backbone.type=ResNet3dSlowFast model.backbone.resample_rate=8"
CASES = [
    (f"{LOADER}.batch_size=0", r"batch_size is a whole number from 1, not 0"),
    (f"{LOADER}.batch_size=big", r"batch_size is a whole number from 1, not 'big'"),
    (f"{LOADER}.num_workers=-1", r"num_workers is a whole number from 0, not -1"),
    (f"{LOADER}.batch_size=100 {LOADER}.drop_last=True", r"12 samples for a batch of"),
    (
        f"{LOADER}.num_workers=0 {LOADER}.prefetch_factor=4",
        r"prefetch_factor=4 needs workers",
    ),
    (f"{LOADER}.sampler.type=DefaultSamplerr", r"did you mean 'DefaultSampler'"),
    (f"{LOADER}.dataset.type=VideoDatset", r"did you mean 'VideoDataset'"),
    (f"{LOADER}.collate_fn.type=nocollate", r"EpochBasedTrainLoop cannot be built"),
    (f"{LOADER}=4", r"train_dataloader is a dict .* not a int"),
    ("pipeline.1.clip_len=0", r"pipeline\.1\.clip_len is a whole number from 1, not 0"),
    ("pipeline.1.clip_len=2.5", r"clip_len is a whole number from 1, not 2\.5"),
    ("pipeline.1.frame_interval=0", r"frame_interval is a whole number from 1, not 0"),
    ("pipeline.3.type=Flipp", r"did you mean 'Flip'"),
    ("model.cls_head.in_channels=9", r"in_channels=9, but the backbone gives 8"),
    ("model.cls_head.num_classes=0", r"num_classes is a whole number from 1, not 0"),
    ("model.cls_head.dropout_ratio=2", r"dropout_ratio is a number from 0 to 1, not 2"),
    ("model.backbone.depth=19", r"ResNet3dSlowOnly cannot be built .* 19"),
    (f"{SLOWFAST} pipeline.1.clip_len=4", r"clip_len=4 is shorter .*resample_rate=8"),
    ("model.backbone.type=WithPlugins model.backbone.of=ResNett "
     "model.backbone.plugins=[]", r"did you mean 'ResNet'"),
    ("model.test_cfg.max_testing_views=many", r"max_testing_views must be a whole"),
    ("train_cfg.max_epochs=0", r"max_epochs is a whole number from 1, not 0"),
    ("train_cfg.max_epochs=ten", r"max_epochs is a whole number from 1, not 'ten'"),
    ("train_cfg.val_interval=0", r"val_interval is a whole number from 1, not 0"),
    ("train_cfg.type=EpochBasedTrainLop", r"did you mean 'EpochBasedTrainLoop'"),
    ("optim_wrapper.type=OptimWraper", r"did you mean 'OptimWrapper'"),
    ("optim_wrapper.optimizer.lr=-1", r"optimizer\.lr is a number from 0, not -1"),
    ("optim_wrapper.optimizer.lr=fast", r"lr is a number from 0, not 'fast'"),
    ("optim_wrapper.optimizer.momentum=-1", r"momentum is a number from 0, not -1"),
    ("optim_wrapper.optimizer.nesterov=True "
     "optim_wrapper.optimizer.momentum=0", r"SGD cannot be built .* Nesterov"),
    ("optim_wrapper=3", r"optim_wrapper is a dict"),
    ("default_hooks.checkpoint.save_best=nosuch", r"'nosuch' is no metric .*acc/top1"),
    ("default_hooks.logger.interval=0", r"interval is a whole number from 1, not 0"),
    ("default_hooks.timer.type=IterTimerHok", r"did you mean 'IterTimerHook'"),
    ("val_evaluator.type=AccMetrc", r"did you mean 'AccMetric'"),
    ("randomness.seed=99999999999", r"seed is a whole number from 0 to 4\.29497e\+09"),
    ("log_level=LOUD", r"log_level is one of 'DEBUG', 'INFO'"),
    ("env_cfg.mp_cfg.mp_start_method=banana", r"one of 'fork', 'spawn', 'forkserver'"),
    ("model.cls_head.average_clips=probx", r"one of 'prob', 'score', None, not 'prob"),
    ("model.data_preprocessor.std=[0,0,0]", r"std\.0 is a number above 0, not 0"),
    ("model.backbone.norm_eval=maybe", r"one of True, False, not 'maybe'"),
    ("optim_wrapper.clip_grad.max_norm=0", r"max_norm is a number above 0, not 0"),
    (f"{LOADER}.sampler.type=InfiniteSampler", r"has no end"),
    ("randomness.seed=abc", r"seed is a whole number from 0 to .*, or None, not"),
    ("compile=fast", r"compile is True, False or a dict such as .*, not 'fast'"),
    ("custom_hooks=['EMAHook']", r"custom_hooks\.0 is a dict .*not a str"),
    ("activation_checkpointing=['backbone.layer9']", r"no layer 'backbone\.layer9'"),
    ("efficient_conv_bn_eval=bakbone", r"no layer 'bakbone'; did you mean 'backbone'"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "sentence"), CASES, ids=[case[0] for case in CASES]
)
def test_one_sentence(tool, tiny_config, tmp_path, capsys, options, sentence):
    config = tiny_config(tmp_path / "c.py")
    arguments = [str(config), "--work-dir", str(tmp_path / "w"), "--cfg-options"]
    with pytest.raises(SystemExit) as left:
        tool("train").main([*arguments, *options.split(" ")])
    said = capsys.readouterr().err.splitlines()
    assert left.value.code == 2
    (said,) = [line for line in said if line.startswith("Error: ")]
    assert re.search(sentence, said), said
    assert not list(tmp_path.glob("w/*.pth")), "an epoch was spent"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("custom_hooks = [dict(type='BadVideoHook')]", r"did you mean 'BadVideosHook'"),
        (
            "custom_hooks = dict(type='BadVideosHook')",
            r"custom_hooks is a list of dicts",
        ),
        (
            "custom_hooks = [dict(type='EMAHook')]\n"
            "strategy = dict(type='FSDPStrategy')\nrunner_type = 'FlexibleRunner'",
            r"EMAHook averages a copy of the network, and FSDP leaves no",
        ),
        (
            "compile = True\n"
            "strategy = dict(type='FSDPStrategy')\nrunner_type = 'FlexibleRunner'",
            r"FSDPStrategy takes no notice of compile: remove it\.",
        ),
        (
            "activation_checkpointing = ['backbone.layer1']\n"
            "strategy = dict(type='DDPStrategy')\nrunner_type = 'FlexibleRunner'",
            r"FlexibleRunner takes no notice of activation_checkpointing: remove it",
        ),
        ("custom_hooks = [dict(priority=3)]", r"custom_hooks\.0 has no type"),
        (
            "param_scheduler = dict(type='MultiStepLRR', milestones=[1])",
            r"'MultiStepLRR', which no .*scheduler has; did you mean 'MultiStepLR'",
        ),
        (
            "param_scheduler = [dict(type='MultiStepLR', milestones=['a'])]",
            r"param_scheduler\.0\.milestones\.0 is a whole number from 0, not 'a'",
        ),
        (
            "visualizer = dict(type='ActionVisualizer', name='new',"
            " vis_backends=[dict(type='LocalVisBakend')])",
            r"did you mean 'LocalVisBackend'",
        ),
        (
            "def f(:",
            r"c\.py, or one it inherits, is not valid Python: line \d+: .*def f",
        ),
        (
            # MMEngine keeps visualizers by their names as long as the process lives.
            "visualizer = dict(type='ActionVisualizer', name='of its own',"
            " vis_backends=[dict(type='TensorboardVisBackend')])",
            r"needs a package: .*pip install",
        ),
    ],
)
def test_one_sentence_for_config_files(
    tool, tiny_config, tmp_path, capsys, text, sentence
):
    config = tiny_config(tmp_path / "c.py", extra=text + "\n")
    if "Tensorboard" in text and find_spec("tensorboard"):
        pytest.skip("tensorboard is installed")
    with pytest.raises(SystemExit) as left:
        tool("train").main([str(config), "--work-dir", str(tmp_path / "w")])
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert re.search(sentence, said), said[-1000:]


@pytest.mark.parametrize(
    ("base", "child"),
    [
        ("a = [1]", "a = dict(b=1)"),
        ("a = None", "a = dict(b=1)"),
        ("a = dict(b=None)", "a = dict(b=dict(c=2))"),
    ],
)
def test_dict_over_something_else(tmp_path, base, child):
    (tmp_path / "base.py").write_text(base)
    (tmp_path / "child.py").write_text(f"_base_ = 'base.py'\n{child}\n")
    with pytest.raises(UserError, match=r"child\.py: .*cannot inherit.*_delete_=True"):
        load_config(str(tmp_path / "child.py"))


def test_no_workers_where_the_config_keeps_them(tool, tiny_config, tmp_path):
    config = tiny_config(tmp_path / "c.py")
    options = [f"{LOADER}.num_workers=0", "pipeline.1.clip_len=2"]
    arguments = ["--work-dir", str(tmp_path / "w"), "--cfg-options", *options]
    tool("train").main([str(config), *arguments])
    assert (tmp_path / "w" / "epoch_1.pth").is_file()


@pytest.mark.parametrize("name", ["train", "test"])
def test_damaged_video_is_named(
    tool, tiny_config, tiny_dataset, tmp_path, capsys, name
):
    """Without BadVideosHook in the config: its name, the hook, and who finds others."""
    data = tmp_path / "data"
    shutil.copytree(tiny_dataset, data)
    (data / "videos" / "7.mp4").write_bytes(b"no video" * 100)
    config = tiny_config(tmp_path / "c.py", data=data)
    arguments = [str(config), "--work-dir", str(tmp_path / "w")]
    if name == "test":
        tool("train").main([str(tiny_config(tmp_path / "d.py")), *arguments[1:]])
        arguments.insert(1, str(tmp_path / "w" / "epoch_1.pth"))
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        tool(name).main(arguments)
    said = [x for x in capsys.readouterr().err.splitlines() if x.startswith("Error: ")]
    assert left.value.code == 2 and len(said) == 1
    assert "7.mp4 cannot be read: " in said[0] and "BadVideosHook" in said[0]
    assert name == "test" or "tools/data/check_videos.py" in said[0]


def test_diverged_training_is_said(tool, tiny_config, tmp_path):
    config = tiny_config(tmp_path / "c.py")
    run = [str(config), "--no-validate", "--work-dir", str(tmp_path / "w")]
    rate = ["--cfg-options", "optim_wrapper.optimizer.lr=1e30"]
    tool("train").main([*run, *rate])
    log = "".join(path.read_text() for path in (tmp_path / "w").rglob("*.log"))
    assert "after epoch 1: the training has diverged" in log


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64], ids=str)
def test_weights_of_another_kind_are_refused(dtype):
    model = torch.nn.Linear(2, 2)
    cast = {f"fc.{key}": w.to(dtype) for key, w in model.state_dict().items()}
    with pytest.raises(UserError, match=rf"holds {dtype} in 2 of its weights"):
        check_complete(model, {"state_dict": cast}, "config.py", "a.pth")


def test_schedule_that_is_cut_off_is_named(tiny_config, tmp_path, monkeypatch):
    """As where the epochs are shortened and nothing else."""
    schedule = """param_scheduler = [
    dict(type='LinearLR', begin=0, end=2, by_epoch=True, start_factor=0.1),
    dict(type='CosineAnnealingLR', T_max=7, begin=2, by_epoch=True),
    dict(type='ConstantLR', end=int(1e9))]
"""
    config = tiny_config(tmp_path / "c.py", extra=schedule)
    lines = []
    monkeypatch.setattr(
        config_values, "print_log", lambda line, **_: lines.append(line)
    )
    for epochs, cut in ((1, True), (9, False)):
        cfg = load_config(str(config), {"train_cfg.max_epochs": epochs})
        lines.clear()
        compare_schedules(cfg)
        said = " ".join(lines)
        assert ("param_scheduler.1 (CosineAnnealingLR) changes" in said) == cut
        assert ("until epoch 9: it is cut off" in said) == cut
        assert len(lines) == 2 * cut
