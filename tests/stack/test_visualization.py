"""Pictures of predictions, for both kinds of recognizers."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from polynl_mm.stack.visualization import (
    PredictionPicturesHook,
    describe,
    first_clip,
)
from polynl_mm.user_errors import UserError


def make_sample(label=1, scores=(0.1, 0.7, 0.2), **meta):
    from mmaction.structures import ActionDataSample

    sample = ActionDataSample(metainfo=meta).set_gt_label(label)
    return sample.set_pred_score(torch.tensor(scores))


def draw(hook, shape, count=5, batch=2, name="clip.mp4"):
    """Let a hook draw a test of ``count`` samples in batches."""
    loader = SimpleNamespace(batch_size=batch, dataset=[None] * count)
    runner = SimpleNamespace(test_dataloader=loader, log_dir="nowhere")
    for index in range(-(-count // batch)):
        size = min(batch, count - index * batch)
        inputs = [torch.randint(255, shape, dtype=torch.uint8) for _ in range(size)]
        samples = [make_sample(filename=name) for _ in range(size)]
        hook.after_test_iter(runner, index, {"inputs": inputs}, samples)


@pytest.mark.parametrize(
    "shape", [(3, 3, 16, 12, 20), (8, 3, 12, 20), (1, 3, 1, 12, 20)], ids=str
)
def test_every_nth_sample_is_drawn(shape, tmp_path):
    draw(PredictionPicturesHook(True, 2, out_dir=str(tmp_path)), shape)
    names = ["000000_clip.png", "000002_clip.png", "000004_clip.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    with Image.open(tmp_path / names[0]) as image:
        assert len(np.unique(np.asarray(image)[..., 0])) > 100, "no frames are in it"


def test_frames_are_those_of_the_first_clip():
    clips = torch.arange(2 * 3 * 4 * 2 * 2, dtype=torch.uint8).view(2, 3, 4, 2, 2)
    np.testing.assert_array_equal(first_clip(clips)[1, 0, 1], clips[0, :, 1, 0, 1])
    with pytest.raises(UserError, match=r"RGB frames, .* shape \(8, 10, 4, 4\)"):
        first_clip(torch.zeros(8, 10, 4, 4))


def test_title_names_the_truth_and_the_best_scores():
    title = describe(make_sample(), ["run", "sit", "fall"], "a.mp4")
    assert title.splitlines() == [
        "a.mp4",
        "true: sit",
        "predicted: sit (0.7), fall (0.2), run (0.1)",
    ]
    assert "class 1 (0.7)" in describe(make_sample(), None, "a.mp4")


def test_window_is_shown_and_closed(monkeypatch, tmp_path):
    shown = []
    monkeypatch.setattr(plt, "get_backend", lambda: "TkAgg")
    monkeypatch.setattr(plt, "pause", shown.append)
    monkeypatch.setattr(plt, "show", lambda: shown.append("until closed"))
    draw(PredictionPicturesHook(True, 3, show=True, wait_time=0.5), (4, 3, 8, 8))
    draw(PredictionPicturesHook(True, 5, show=True, wait_time=0), (4, 3, 8, 8))
    assert shown == [0.5, 0.5, "until closed"]
    assert not plt.get_fignums()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (dict(interval=0), "a whole number from 1, not 0"),
        (dict(wait_time=-1), "in seconds from 0, not -1"),
        (dict(show=True), "no window can be opened.*--show-dir"),
    ],
    ids=str,
)
def test_unfit_arguments(arguments, sentence, monkeypatch):
    monkeypatch.setattr(plt, "get_backend", lambda: "agg")
    with pytest.raises(UserError, match=sentence):
        PredictionPicturesHook(**{"enable": True, **arguments})
