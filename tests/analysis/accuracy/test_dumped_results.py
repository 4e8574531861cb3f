"""Dumps are read as data, and matched by their samples."""

import collections
import io
import os
import pickle

import numpy as np
import pytest
import torch
from dumps import write_dump

from polynl_mm.analysis.accuracy.dumped_results import match_samples, read_results
from polynl_mm.user_errors import UserError

SCORES = [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]]


def test_reads_what_tensors_and_arrays_hold(tmp_path):
    path = write_dump(tmp_path / "a.pkl", SCORES, [0, 1, 2], names=["b", "a", "c"])
    results = read_results(path)
    np.testing.assert_allclose(results.scores, SCORES, rtol=1e-6)
    assert results.labels.tolist() == results.predictions.tolist() == [0, 1, 2]
    assert results.names == ["b", "a", "c"] and results.num_classes == 3
    rows = torch.tensor(SCORES)  # slices of one storage, in several types
    samples = [
        dict(pred_score=rows[0], gt_label=torch.tensor([0]), img_shape=(4, 4)),
        dict(pred_score=rows[1].bfloat16(), gt_label=1, frame_inds=np.arange(3)),
        dict(pred_score=rows.numpy()[2], gt_label=np.int64(2)),
    ]
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "b.pkl").write_bytes(pickle.dumps(samples, protocol))
        mixed = read_results(tmp_path / "b.pkl")
        np.testing.assert_allclose(mixed.scores, SCORES, atol=2e-3)
        assert mixed.labels.tolist() == [0, 1, 2] and mixed.names is None


class Harmful:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Storage:
    """A storage whose bytes, a pickle within the pickle, hold something harmful."""

    def __init__(self, content):
        self.content = content

    def __reduce__(self):
        file = io.BytesIO()
        torch.save(self.content, file)
        return torch.storage._load_from_bytes, (file.getvalue(),)


@pytest.mark.parametrize("kind", ["call", "storage", "attribute", "legacy"])
def test_harmful_pickles_are_refused_and_nothing_runs(tmp_path, kind):
    marker = tmp_path / "marker"
    harmful = Harmful(os.mkdir, str(marker))
    content = {
        "call": [harmful],
        "storage": [Storage(harmful)],
        "attribute": [Harmful(getattr, os, "mkdir")],
        "legacy": [dict(pred_score=harmful, gt_label=torch.tensor([0]))],
    }[kind]
    path = tmp_path / "harmful.pkl"
    protocol = 0 if kind == "legacy" else None
    if kind == "attribute":
        path.write_bytes(b"cos\nmkdir\n(V" + str(marker).encode() + b"\ntR.")
    else:
        path.write_bytes(pickle.dumps(content, protocol=protocol))
    with pytest.raises(UserError, match=r"harmful\.pkl is refused, .*mkdir"):
        read_results(path)
    assert not marker.exists()


def test_objects_and_object_arrays_are_refused(tmp_path):
    path = tmp_path / "a.pkl"
    for content in (
        [collections.Counter("a")],
        [np.array([{}], dtype=object)],
        [torch.nn.Linear(1, 1)],
    ):
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(UserError, match=r"a\.pkl"):
            read_results(path)


def test_tensor_beyond_its_storage(tmp_path):
    class Wild:
        def __reduce__(self):
            storage = torch.storage.TypedStorage(4, dtype=torch.float32, _internal=True)
            arguments = (storage, 0, (10**9,), (0,), False, collections.OrderedDict())
            return torch._utils._rebuild_tensor_v2, arguments

    path = tmp_path / "wild.pkl"
    path.write_bytes(pickle.dumps([dict(pred_score=Wild(), gt_label=0)]))
    with pytest.raises(UserError, match="larger than its storage"):
        read_results(path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "damaged, cut off"),
        (b"just text", "damaged, cut off"),
        (pickle.dumps([]), "holds no samples"),
        (pickle.dumps({}), "holds a dict"),
        (pickle.dumps([1]), "sample 0 has no pred_score"),
        (pickle.dumps([dict(pred_score=[1.0], gt_label=0)]), "one score for each"),
        (pickle.dumps([dict(pred_score=[0.1, 0.9], gt_label=-1)]), "the label -1"),
        (pickle.dumps([dict(pred_score=[0.1, 0.9], gt_label=2)]), "labels 0 to 1"),
        (pickle.dumps([dict(pred_score=[0.1, 0.9], gt_label=[0, 1])]), "single class"),
        (
            pickle.dumps([dict(pred_score=[0.1, float("nan")], gt_label=0)]),
            "not finite",
        ),
    ],
)
def test_unfit_files(tmp_path, content, sentence):
    path = tmp_path / "a.pkl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        read_results(path)


def test_missing_and_cut_files(tmp_path):
    path = write_dump(tmp_path / "scores.pkl", SCORES, [0, 1, 2])
    with pytest.raises(UserError, match=r"do not exist; did you mean 'scores\.pkl'"):
        read_results(tmp_path / "score.pkl")
    with pytest.raises(UserError, match="is a folder"):
        read_results(tmp_path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match="cut off"):
        read_results(path)


def test_samples_are_matched_by_name(tmp_path):
    labels = [0, 1, 2]
    rgb = write_dump(
        tmp_path / "rgb.pkl",
        SCORES,
        labels,
        names=["/rgb/x/a.mp4", "/rgb/y/b.mp4", "/rgb/y/c.mp4"],
    )
    flow = write_dump(
        tmp_path / "flow.pkl",
        SCORES[::-1],
        labels[::-1],
        names=["/flow/y/c", "/flow/y/b", "/flow/x/a"],
    )
    first, second = match_samples([read_results(rgb), read_results(flow)])
    assert second.labels.tolist() == labels
    np.testing.assert_array_equal(first.scores, second.scores)
    assert second.names[0] == "/flow/x/a"


def test_videos_that_are_listed_twice(tmp_path):
    a = write_dump(tmp_path / "a.pkl", SCORES, [0, 0, 2], names=["v/a", "v/a", "v/c"])
    b = write_dump(
        tmp_path / "b.pkl",
        [SCORES[2], SCORES[0], SCORES[1]],
        [2, 0, 0],
        names=["v/c", "v/a", "v/a"],
    )
    first, second = match_samples([read_results(a), read_results(b)])
    np.testing.assert_array_equal(first.scores, second.scores)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (dict(names=["v/a", "v/b", "v/d"]), "b.pkl has no 'c', one of 1 that differ"),
        (dict(labels=[0, 1, 1]), r"sample 2 \(v/c\) has the label 2 in one and 1 in"),
        (dict(scores=[[0.5, 0.5]] * 3, labels=[0, 1, 1]), "has 3 classes, but .* 2;"),
        (dict(rows=2, names=None), "3 samples, but .* has 2"),
        (dict(labels=[1, 0, 2], names=None), r"sample 0 \(v/a\) has the label 0 in"),
    ],
)
def test_other_samples_are_refused(tmp_path, change, sentence):
    given = dict(scores=SCORES, labels=[0, 1, 2], names=["v/a", "v/b", "v/c"])
    a = write_dump(tmp_path / "a.pkl", **given)
    rows = change.pop("rows", 3)
    given.update(change)
    given = {key: value and value[:rows] for key, value in given.items()}
    b = write_dump(tmp_path / "b.pkl", **given)
    with pytest.raises(UserError, match=sentence):
        match_samples([read_results(a), read_results(b)])


def test_what_is_no_regular_file_of_bounded_size_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.pkl")
    with open(tmp_path / "large.pkl", "wb") as file:
        file.truncate(2**42)  # takes no room on the disk
    write_dump(tmp_path / "a.pkl", SCORES, [0, 1, 2])
    (tmp_path / "link.pkl").symlink_to("a.pkl")
    assert len(read_results(tmp_path / "link.pkl").labels) == 3
    for path, sentence in (
        (tmp_path / "pipe.pkl", "is no regular file"),
        ("/dev/zero", "is no regular file"),
        (tmp_path / "large.pkl", r"a file of at most \d+ is read"),
    ):
        with pytest.raises(UserError, match=sentence):
            read_results(path)


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("sample", "sentence"),
    [
        (dict(pred_score=[0.1, 0.9], gt_label=10**5000), "single class"),
        (dict(pred_score=[0.1, 10**5000], gt_label=0), "one score for each class"),
        (dict(pred_score=[0.1, "x"], gt_label=0), "one score for each class"),
        (dict(pred_score=[0.1, None], gt_label=0), "one score for each class"),
        (dict(pred_score=nested(200), gt_label=0), "one score for each class"),
        (dict(pred_score=[0.1, 0.9], gt_label=0, filename=nested(200)), "is no text"),
        (dict(pred_score=[0.1, 0.9], gt_label=0, filename=10**5000), "is no text"),
    ],
    ids=["label", "score", "text", "none", "deep", "deep name", "long name"],
)
def test_values_of_anybody_are_refused_in_one_sentence(tmp_path, sample, sentence):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([sample]))
    with pytest.raises(UserError, match=f"sample 0.*{sentence}"):
        read_results(tmp_path / "a.pkl")


def test_small_file_of_many_scores_takes_no_memory(tmp_path):
    sample = dict(pred_score=torch.zeros(2**20), gt_label=0)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([sample] * 10**5))
    with pytest.raises(UserError, match=r"100000 samples .* at most \d+ scores"):
        read_results(tmp_path / "a.pkl")


def test_deep_pickle(tmp_path):
    deep = b"\x80\x02" + b"]" * 10**5 + b"a" * (10**5 - 1) + b"."
    (tmp_path / "a.pkl").write_bytes(deep)
    with pytest.raises(UserError, match="sample 0 has no pred_score"):
        read_results(tmp_path / "a.pkl")
