"""Ten clips and three crops of a real video: little memory, and the mean of the views.

A SlowOnly-R50 with Poly-NL, of full depth and an eighth of its width.
"""

import json
import os
import subprocess
import sys

import pytest
import torch
from conftest import REPO

VIDEO = "clip_256p.mp4"  # 300 frames
CONFIG = f"""
_base_ = {str(REPO)!r} + (
    '/configs/slowonly/slowonly_r50-polynl_8xb16-8x8x1-256e_kinetics400-rgb.py')
model = dict(backbone=dict(base_channels=8), cls_head=dict(in_channels=256))
test_pipeline = [
    dict(type='DecordInit'),
    dict(type='SampleFrames', clip_len=8, frame_interval=8, num_clips=10,
         test_mode=True),
    dict(type='DecordDecode'),
    dict(type='Resize', scale=(-1, 224)),
    dict(type='ThreeCrop', crop_size=224),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs')]
test_dataloader = dict(
    num_workers=0, persistent_workers=False,
    dataset=dict(ann_file='list.txt', data_prefix=dict(video={{videos!r}}),
                 pipeline=test_pipeline))
"""
# Runs the tool in this process, and tells how much memory it has ever had: VmHWM, as
# ru_maxrss of a new process begins with its parent's.
MEASURED = """
import json, pathlib, re, runpy, sys
sys.argv = sys.argv[1:]
sys.path.insert(0, sys.argv[0].rpartition('/')[0])
import torch
sizes = []
forward = torch.nn.Conv3d.forward
def seen(self, x):
    if x.shape[1] == 3:
        sizes.append(len(x))
    return forward(self, x)
torch.nn.Conv3d.forward = seen
runpy.run_path(sys.argv[0], run_name='__main__')
status = pathlib.Path('/proc/self/status').read_text()
peak = int(re.search(r'VmHWM:\\s+(\\d+) kB', status)[1]) * 1024
json.dump(dict(peak=peak, sizes=sizes), open('measured.json', 'w'))
"""


@pytest.fixture(scope="module")
def tested(shared_videos, tmp_path_factory):
    """A folder with config, checkpoint, dump and measurements of a test."""
    from mmaction.registry import MODELS
    from mmaction.utils import register_all_modules

    from polynl_mm.recognizers.configs import load_config

    register_all_modules()
    folder = tmp_path_factory.mktemp("multi view")
    (folder / "config.py").write_text(CONFIG.format(videos=str(shared_videos)))
    (folder / "list.txt").write_text(f"{VIDEO} 3\n")
    cfg = load_config(str(folder / "config.py"))
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    with torch.no_grad():  # as after training: plugins take part, classes differ
        for name, parameter in model.named_parameters():
            if name.endswith("poly_nl.alpha"):
                parameter.fill_(0.1)
        model.cls_head.fc_cls.weight.normal_(std=0.3)
    torch.save({"state_dict": model.state_dict()}, folder / "model.pth")
    done = subprocess.run(
        [
            *(sys.executable, "-c", MEASURED),
            *(str(REPO / "tools/test.py"), "config.py", "model.pth"),
            *("--work-dir", "w", "--dump", "scores.pkl"),
        ],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder, cfg, model.eval()


def test_memory_is_bounded(tested):
    folder, *_ = tested
    measured = json.loads((folder / "measured.json").read_text())
    assert sum(measured["sizes"]) == 30 and max(measured["sizes"]) == 4
    assert 0.3e9 < measured["peak"] < 1.5e9


def test_scores_are_the_mean_of_thirty_single_views(tested, shared_videos):
    from mmengine.dataset import Compose

    from polynl_mm.analysis.accuracy.dumped_results import read_results

    folder, cfg, model = tested
    results = read_results(folder / "scores.pkl")
    assert results.names == [str(shared_videos / VIDEO)]
    sample = dict(filename=results.names[0], label=3, start_index=0, modality="RGB")
    packed = Compose(cfg.test_pipeline)(sample)
    assert packed["inputs"].shape == (30, 3, 8, 224, 224)
    scores = []
    with torch.no_grad():
        for view in packed["inputs"]:
            one = dict(
                inputs=[view[None]], data_samples=[packed["data_samples"].clone()]
            )
            scores.append(model.test_step(one)[0].pred_score)
    scores = torch.stack(scores)
    assert scores.std(dim=0).max() > 1e-5, "the views are alike: nothing is averaged"
    torch.testing.assert_close(
        torch.from_numpy(results.scores[0]).float(),
        scores.mean(dim=0),
        rtol=1e-4,
        atol=1e-7,
    )
