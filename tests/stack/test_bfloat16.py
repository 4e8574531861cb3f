"""Mixed precision where there is no GPU."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from torch import nn

from polynl_mm.commands import training
from polynl_mm.recognizers.configs import load_config
from polynl_mm.stack.bfloat16 import accept_bfloat16_scores, measure_slowdown


def test_forward_runs_in_bfloat16_and_weights_stay_float32(monkeypatch):
    monkeypatch.setattr("mmengine.runner.amp.get_device", lambda: "cpu")
    model = nn.Linear(4, 2)
    before = model.weight.clone()
    wrapper = build_optim_wrapper(
        model, dict(type="Bfloat16OptimWrapper", optimizer=dict(type="SGD", lr=0.1))
    )
    with wrapper.optim_context(model):
        y = model(torch.ones(3, 4))
    assert y.dtype == torch.bfloat16
    wrapper.update_params(y.float().square().mean())
    assert model.weight.dtype == torch.float32
    assert not torch.equal(model.weight, before)
    assert model(torch.ones(3, 4)).dtype == torch.float32


def test_heads_take_bfloat16_scores():
    init_default_scope("mmaction")
    from mmaction.models.heads import I3DHead
    from mmaction.structures import ActionDataSample

    accept_bfloat16_scores()
    accept_bfloat16_scores()
    head = I3DHead(num_classes=3, in_channels=4)
    scores = torch.randn(2, 3).bfloat16().requires_grad_()
    samples = [ActionDataSample().set_gt_label(i) for i in range(2)]
    losses = head.loss_by_feat(scores, samples)
    assert losses["loss_cls"].dtype == torch.float32
    losses["loss_cls"].backward()
    assert scores.grad.dtype == torch.bfloat16


def test_amp_of_train_py_needs_no_gpu(tool, tiny_config, tmp_path, monkeypatch):
    train = tool("train")
    monkeypatch.setattr(training, "get_device", lambda: "cpu")
    extra = "optim_wrapper.update(type='AmpOptimWrapper', dtype='float16')\n"
    config = tiny_config(tmp_path / "c.py", extra=extra)
    arguments = [str(config), "--amp", "--work-dir", str(tmp_path / "w")]
    args = train.parse_args(arguments)
    cfg = load_config(args.config)
    training.merge_args(cfg, args)
    assert cfg.optim_wrapper.type == "Bfloat16OptimWrapper"
    assert "dtype" not in cfg.optim_wrapper
    if not torch.cuda.is_available():
        train.main([*arguments, "--no-validate"])
        assert (tmp_path / "w" / "epoch_1.pth").is_file()


@pytest.mark.parametrize("ratio", [1.1, 30.0])
def test_amp_that_slows_training_down_says_so(
    tool, tiny_config, tmp_path, monkeypatch, ratio
):
    train, said = tool("train"), []
    monkeypatch.setattr(training, "measure_slowdown", lambda: ratio)
    monkeypatch.setattr(training, "get_device", lambda: "cpu")
    monkeypatch.setattr(training, "print_log", lambda text, **_: said.append(text))
    args = train.parse_args([str(tiny_config(tmp_path / "c.py")), "--amp"])
    cfg = load_config(args.config)
    training.merge_args(cfg, args)
    assert cfg.optim_wrapper.type == "Bfloat16OptimWrapper"
    assert [text for text in said if "30 times as long" in text] == said[: ratio > 2]


def test_slowdown_is_measured():
    assert 0 < measure_slowdown() < 1e4
