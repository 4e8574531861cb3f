"""MMEngine's own switches, as docs/also_works.md lists them, with a plugin."""

import importlib.util

import pytest
import torch

PLUGIN = """
backbone = model['backbone']
backbone['of'] = backbone.pop('type')
backbone.update(type='WithPlugins', plugins=[dict(cfg=dict(type='PolyNL3d'))])
del backbone
train_dataloader.update(num_workers=0, persistent_workers=False)
"""
SWITCHES = {
    "hooks and optimizer": """
custom_hooks = [dict(type='EMAHook', momentum=0.0002),
                dict(type='EarlyStoppingHook', monitor='acc/top1', patience=5)]
optim_wrapper.update(accumulative_counts=4, clip_grad=dict(max_norm=40))
""",
    "tensorboard": """
vis_backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
visualizer = dict(type='ActionVisualizer', vis_backends=vis_backends)
""",
    "compile": """
compile = dict(backend='eager')
backbone = model['backbone']
backbone['plugins'] += [dict(cfg=dict(type='NonLocalBlock3d'))]
del backbone
optim_wrapper.update(optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
                     paramwise_cfg=dict(norm_decay_mult=0.0))
""",
    "checkpointing, deterministic": """
activation_checkpointing = ['backbone.layer1']
""",
}
OPTIONS = {
    "checkpointing, deterministic": ["--seed", "0", "--deterministic"],
    "compile": ["--amp", "--no-validate"],
}


@pytest.mark.parametrize("name", SWITCHES)
def test_switch(tool, tiny_config, tmp_path, name):
    if name == "tensorboard" and importlib.util.find_spec("tensorboard") is None:
        pytest.skip("tensorboard is not installed")
    config = tiny_config(tmp_path / "c.py", extra=PLUGIN + SWITCHES[name])
    options = OPTIONS.get(name, [])
    try:
        tool("train").main([str(config), "--work-dir", str(tmp_path / "w"), *options])
    finally:
        torch.use_deterministic_algorithms(False)
    loaded = torch.load(tmp_path / "w" / "epoch_1.pth", weights_only=False)
    assert any("poly_nl.alpha" in key for key in loaded["state_dict"])
    assert ("ema_state_dict" in loaded) == (name == "hooks and optimizer")
    if name == "tensorboard":
        assert list((tmp_path / "w").rglob("events.out.tfevents.*"))
