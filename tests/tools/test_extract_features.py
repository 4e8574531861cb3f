# ruff: noqa: RUF005  (an option and its value stay together)
import json
import os
import subprocess

import numpy as np
import pytest
import torch
from clips_over_time import (
    AS_TSN,
    noise,
    save_untrained,
    scores_of_test,
    write_lossless,
)
from conftest import TOOLS

from polynl_mm.datasets.preparation.listed_videos import read_video_list


@pytest.fixture(scope="module", params=["3d", "2d"])
def untrained(request, tiny_config, tmp_path_factory):
    """A config of each kind of recognizer, and random weights."""
    folder = tmp_path_factory.mktemp("untrained")
    extra = AS_TSN if request.param == "2d" else ""
    config = tiny_config(folder / "tiny.py", extra=extra)
    return str(config), save_untrained(config)


@pytest.fixture(scope="module")
def plain(tiny_config, tmp_path_factory):
    config = tiny_config(tmp_path_factory.mktemp("plain") / "tiny.py")
    return str(config), save_untrained(config)


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    """A list of three videos and the frames of each."""
    folder = tmp_path_factory.mktemp("my videos")
    (folder / "sub").mkdir()
    clips = {"a": noise(30, 1), "sub/b c": noise(21, 2), "d": noise(10, 3)}
    for name, frames in clips.items():
        write_lossless(folder / f"{name}.avi", frames, fps=10)
    lines = [f"{name}.avi {number}" for number, name in enumerate(clips)]
    (folder / "list.txt").write_text("\n".join(lines) + "\n")
    return folder / "list.txt", clips


def run(tool, untrained, file, out, *options):
    return tool("extract_features").main(
        [*untrained, str(file), "--window", "1", "--out-dir", str(out)]
        + ["--device", "cpu", *options]
    )


def test_scores_are_those_of_test_on_the_same_frames(untrained, listed, tool, tmp_path):
    file, clips = listed
    out = tmp_path / "out"
    run(tool, untrained, file, out, "--step", "0.5", "--scores")
    cut, found = [], []
    weights = torch.load(untrained[1])["state_dict"]
    weight = weights["cls_head.fc_cls.weight"].numpy()
    bias = weights["cls_head.fc_cls.bias"].numpy()
    for name, frames in clips.items():
        record = json.loads((out / f"{name}.json").read_text())
        features = np.load(out / f"{name}.npy")
        scores = np.load(out / f"{name}_scores.npy")
        assert list(features.shape) == record["shape"]
        assert features.dtype == np.float32
        starts = [round(10 * start) for start in record["start"]]
        assert starts == list(range(0, max(len(frames) - 10, 0) + 5, 5))[: len(starts)]
        assert record["end"][-1] == pytest.approx(len(frames) / 10)
        cut += [frames[start : start + 10] for start in starts]
        found += list(scores)
        # One view: the head's layer on the features gives the scores.
        logits = features @ weight.T + bias
        softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        np.testing.assert_allclose(softmax, scores, atol=1e-5)
    (tmp_path / "cut").mkdir()
    expected = scores_of_test(tool, *untrained, cut, tmp_path / "cut")
    np.testing.assert_allclose(np.stack(found), expected, atol=1e-5)
    assert np.ptp(expected[:, 0]) > 1e-3, "the windows must differ"


def test_any_module(plain, listed, tool, tmp_path):
    file, clips = listed
    run(tool, plain, file, tmp_path / "head")
    run(tool, plain, file, tmp_path / "layer", "--module", "backbone.layer1")
    for name in clips:
        head, layer = (np.load(tmp_path / x / f"{name}.npy") for x in ("head", "layer"))
        # The only stage of the tiny network is what the head pools.
        np.testing.assert_allclose(head, layer, rtol=1e-4, atol=1e-6)
    run(tool, plain, file, tmp_path / "stem", "--module", "backbone.conv1")
    assert not np.allclose(np.load(tmp_path / "stem" / "a.npy"), head[:1])


def test_goes_on_and_does_not_mix(plain, listed, tool, tmp_path, capsys):
    file, _ = listed
    run(tool, plain, file, tmp_path)
    assert "3 of 3 videos are in" in capsys.readouterr().out
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.npy")}
    os.unlink(tmp_path / "d.json")  # as after a kill between the two
    run(tool, plain, file, tmp_path)
    assert "(2 were there already)" in capsys.readouterr().out
    after = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.npy")}
    assert [p.name for p in before if after[p] != before[p]] == ["d.npy"]
    with pytest.raises(SystemExit):
        run(tool, plain, file, tmp_path, "--step", "0.25")
    assert "was made with step=1.0, not 0.25" in capsys.readouterr().err


def test_features_of_another_video_are_kept(plain, listed, tool, tmp_path, capsys):
    file, clips = listed
    run(tool, plain, file, tmp_path / "out")
    before = (tmp_path / "out" / "a.npy").read_bytes()
    write_lossless(tmp_path / "a.mkv", clips["a"], fps=10)
    (tmp_path / "list.txt").write_text("a.mkv 0\n")
    with pytest.raises(SystemExit):
        run(tool, plain, tmp_path / "list.txt", tmp_path / "out", "--scores")
    assert f"a.json is the result of {file.parent / 'a.avi'}, not of " in (
        capsys.readouterr().err
    )
    assert (tmp_path / "out" / "a.npy").read_bytes() == before


def test_bad_videos_are_named_and_counted(plain, listed, tool, tmp_path, capsys):
    file, _ = listed
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    other = tmp_path / "list.txt"
    other.write_text(f"{text} 0\nabsent.mp4 1\na.avi 0\n")
    given = tmp_path / "out", "--data-prefix", str(file.parent)
    assert run(tool, plain, other, *given) == 1
    said = capsys.readouterr()
    assert "1 of 3 videos are in" in said.out
    assert "2 of them cannot be read and have no features:" in said.err
    assert said.err.count("absent.mp4") == said.err.count(str(text)) == 2
    assert [p.name for p in (tmp_path / "out").glob("*.npy")] == ["a.npy"]


def test_several_processes_write_the_same(plain, listed, tool, tmp_path):
    file, clips = listed
    run(tool, plain, file, tmp_path / "one")
    done = subprocess.run(
        ["bash", TOOLS / "dist_extract_features.sh", *plain, file, "2"]
        + ["--window", "1", "--out-dir", tmp_path / "two"],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert "3 of 3 videos are in" in done.stdout
    for name in clips:
        one, two = (np.load(tmp_path / x / f"{name}.npy") for x in ("one", "two"))
        np.testing.assert_allclose(one, two, atol=1e-6)


@pytest.mark.parametrize(
    "options, sentence",
    [
        (["--module", "backbone.layer9"], "no module 'backbone.layer9'; did you mean"),
        (["--step", "-1"], "--step: a number of seconds, more than 0"),
        (["--delimiter", ""], "--delimiter is at least one character"),
    ],
)
def test_mistakes_are_said(plain, listed, tool, tmp_path, capsys, options, sentence):
    with pytest.raises(SystemExit):
        run(tool, plain, listed[0], tmp_path, *options)
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["x.mp4", "x_scores.mp4"], ["x", "x_scores_mp4"]),
        (["x_scores.mp4", "x.mp4"], ["x_scores_mp4", "x"]),
        (["s/x.mp4", "x_scores.mp4"], ["s/x", "x_scores"]),
        (["x.mp4", "x.avi", "x_mp4.mkv"], ["x_mp4", "x_avi", "x_mp4_2"]),
        (["x.mp4", "../x.mp4", "/y/x.mp4"], ["x_mp4", "x_mp4_2", "x_mp4_3"]),
        (["x.mp4", "x.avi", "x_mp4_scores.mp4"], ["x_mp4", "x_avi", "x_mp4_scores_2"]),
    ],
)
def test_results_of_a_list_have_files_of_their_own(tmp_path, paths, names):
    (tmp_path / "list.txt").write_text("\n".join(paths))
    videos = read_video_list(tmp_path / "list.txt", tmp_path)
    assert [video.name for video in videos] == names
    files = [f"{name}{kind}" for name in names for kind in ("", "_scores")]
    assert len(set(files)) == len(files)


def test_list_of_any_form(tmp_path):
    file = tmp_path / "list.txt"
    file.write_text(
        "my clip.mp4 3 4\nno_label.mkv\n\nx.mp4 1\nx.avi 1\nx.mp4 1\n"
        f"../../etc/y.mp4 0\n{tmp_path}/in/z.mp4 0\nbare 2\n"
    )
    videos = read_video_list(file, tmp_path)
    assert [video.name for video in videos] == [
        "my clip", "no_label", "x_mp4", "x_avi", "etc/y", "in/z", "bare",
    ]  # fmt: skip
    assert videos[-1].path == f"{tmp_path / 'bare'}.mp4"
    for label in ("3", "-1", "0.5", "3 4"):
        for delimiter in " ;,|\t":
            labels = label.replace(" ", delimiter)
            file.write_text(f"\na.mp4{delimiter}{labels}\n")
            assert [x.name for x in read_video_list(file, tmp_path)] == ["a"]
    file.write_text("a b.mp4;3\n")
    assert read_video_list(file, tmp_path, ";")[0].name == "a b"


def test_names_that_end_like_a_label(tmp_path):
    """Without a suffix, which a list may leave out."""
    for name in ("match 1", "match 2.5", "both", "both 3"):
        (tmp_path / f"{name}.mp4").touch()
    file = tmp_path / "list.txt"
    file.write_text("match 1\nmatch 2.5.mp4\nboth 3\nabsent 4\n")
    found = [os.path.basename(video.path) for video in read_video_list(file, tmp_path)]
    assert found == ["match 1.mp4", "match 2.5.mp4", "both.mp4", "absent.mp4"]
