"""Networks with plugins on a GPU: mixed precision, one rank, FSDP, the tools."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from clips_over_time import noise, save_untrained, write_lossless
from torch import distributed, nn

DEVICE = os.environ.get("POLYNL_TEST_DEVICE", "cuda")
REPO = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(
        DEVICE == "cuda" and not torch.cuda.is_available(),
        reason="torch sees no CUDA GPU on this machine",
    ),
]
on_cuda = pytest.mark.skipif(DEVICE != "cuda", reason="is of GPUs alone")


@pytest.fixture
def one_rank():
    """A process group of this process alone."""
    backend = "nccl" if DEVICE == "cuda" else "gloo"
    distributed.init_process_group(
        backend, rank=0, world_size=1, store=distributed.HashStore()
    )
    yield
    distributed.destroy_process_group()


def network(norm="BN3d"):
    from mmengine.registry import MODELS, init_default_scope

    from polynl_mm import register

    register()
    init_default_scope("mmaction")
    from mmaction.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    torch.manual_seed(0)
    return MODELS.build(
        dict(
            type="WithPlugins",
            of="ResNet3dSlowOnly",
            plugins=[
                dict(cfg=dict(type="PolyNL3d", norm_cfg=dict(type=norm))),
                dict(cfg=dict(type="NonLocalBlock3d", mode="dot_product")),
            ],
            depth=18,
            pretrained=None,
            lateral=False,
            num_stages=2,
            out_indices=(1,),
            base_channels=8,
            spatial_strides=(1, 2),
            temporal_strides=(1, 1),
            dilations=(1, 1),
            inflate=(0, 0),
            norm_cfg=dict(type=norm, requires_grad=True),
            norm_eval=False,
        )
    ).to(DEVICE)


def step(model, x, dtype=None):
    """Return the loss before and after a step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    for _ in range(2):
        with torch.autocast(DEVICE, dtype=dtype, enabled=dtype is not None):
            loss = model(x).float().square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.fixture
def clips():
    torch.manual_seed(1)
    return torch.randn(2, 3, 4, 32, 32, device=DEVICE)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_training_steps_lower_the_loss(clips, dtype):
    before, after = step(network(), clips, dtype)
    assert after < before


def test_one_rank_of_ddp_is_no_rank(one_rank, clips):
    expected = step(network(), clips)
    found = step(nn.parallel.DistributedDataParallel(network()), clips)
    assert found == pytest.approx(expected, rel=1e-3)


@on_cuda
def test_synchronised_norms(one_rank, clips):
    expected = step(network(), clips)
    found = step(nn.parallel.DistributedDataParallel(network("SyncBN")), clips)
    assert found == pytest.approx(expected, rel=1e-3)


@on_cuda
def test_fsdp_shares_plugins_out(one_rank, clips):
    from torch.distributed.fsdp import FullyShardedDataParallel

    expected = step(network(), clips)
    found = step(FullyShardedDataParallel(network(), use_orig_params=True), clips)
    assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("extra", [[], ["--amp"]])
def test_tools_train_and_test(tiny_config, tmp_path, extra):
    config = tiny_config(tmp_path / "config.py")
    env = dict(os.environ, PYTHONPATH=os.pathsep.join([str(REPO), *sys.path]))
    work_dir = tmp_path / "w"
    for tool in (
        ["train.py", config, "--work-dir", work_dir, *extra],
        ["test.py", config, work_dir / "epoch_1.pth", "--work-dir", tmp_path / "t"],
    ):
        done = subprocess.run(
            [sys.executable, REPO / "tools" / tool[0], *map(str, tool[1:])],
            env=env,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "acc/top1" in done.stdout + done.stderr


PLUGINS = """
model['backbone'].update(
    type='WithPlugins', of='ResNet3dSlowOnly',
    plugins=[dict(cfg=dict(type='PolyNL3d', zero_init=False))])
"""


@pytest.fixture
def untrained(tiny_config, tmp_path):
    """A config with a plugin, random weights, and a video of 30 frames."""
    config = tiny_config(tmp_path / "config.py", extra=PLUGINS)
    video = write_lossless(tmp_path / "long.avi", noise(30))
    return [str(config), save_untrained(config), str(video)]


@pytest.mark.parametrize("extra", [[], ["--whole-video", "--part-frames", "7"]])
def test_predicts_as_a_cpu(tool, untrained, tmp_path, extra):
    scores = []
    for device in ("cpu", DEVICE):
        file = tmp_path / f"{device}.json"
        line = [*untrained, "--device", device, "--json", str(file), *extra]
        assert tool("predict").main(line) == 0
        scores.append(leaves(json.loads(file.read_text())))
    assert scores[1] == pytest.approx(scores[0], abs=2e-3) and scores[0]


def test_timelines_and_features_as_of_a_cpu(tool, untrained, tmp_path):
    config, checkpoint, video = untrained
    (tmp_path / "list.txt").write_text(f"{Path(video).name} 0\n")
    found = []
    for device in ("cpu", DEVICE):
        out = tmp_path / device
        options = ["--window", "1", "--out-dir", str(out), "--device", device]
        tool("predict_timeline").main([*untrained, *options])
        timeline = json.loads((out / "long_avi_timeline.json").read_text())
        tool("extract_features").main(
            [config, checkpoint, str(tmp_path / "list.txt"), *options]
        )
        scores = [window["scores"] for window in timeline["windows"]]
        found.append((scores, np.load(out / "long.npy")))
    for ours, theirs in zip(found[1], found[0], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-3 * np.abs(theirs).max())


@pytest.mark.parametrize(
    ("name", "extra"),
    [("influence", []), ("grad_cam", ["--module", "backbone.layer1"])],
)
def test_draws_where_a_plugin_looks(tool, untrained, tmp_path, name, extra):
    options = ["--out", str(tmp_path / "out"), "--device", DEVICE, *extra]
    tool(f"visualizations/{name}").main([*untrained, *options])
    assert list((tmp_path / "out").glob("*.png"))


def leaves(value):
    """Return the numbers in a file of JSON."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for part in value for number in leaves(part)]
    return [value] if isinstance(value, float) else []
