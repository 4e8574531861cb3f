"""Reading the predictions that ``tools/test.py --dump`` writes, and matching them.

A dump is a pickle, and a pickle can run code. Here it loads as data: tensors, numpy
arrays of plain numbers, and plain Python values. Anything else is refused.
"""

import io
import math
import os
import pickle
import re
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch

from polynl_mm.recognizers.evaluation_pipelines import SOURCES
from polynl_mm.stack.safe_checkpoints import (
    empty_array,
    numpy_scalar,
    plain_dtype,
)
from polynl_mm.text_files import expect_regular
from polynl_mm.user_errors import UserError, did_you_mean, first_line

# The dump of 10^5 samples of 700 classes has 300 MB.
MOST_BYTES = 2**32
# A small pickle may name one large tensor many times.
MOST_SCORES = 2**28


@dataclass
class DumpedResults:
    """The predictions of one test.

    Attributes:
        path (str): The file they were read from.
        scores (np.ndarray): (samples, classes), as the head gave them.
        labels (np.ndarray): (samples,), the true classes.
        names (list[str] | None): The video or folder of each sample, where the file
            tells them; dumps not made by this ``tools/test.py`` mostly do not.
    """

    path: str
    scores: np.ndarray
    labels: np.ndarray
    names: list[str] | None = None

    @property
    def num_classes(self) -> int:
        """How many classes the scores are of."""
        return self.scores.shape[1]

    @property
    def predictions(self) -> np.ndarray:
        """The class of the highest score of each sample."""
        return self.scores.argmax(axis=1)


def read_results(path: str | os.PathLike) -> DumpedResults:
    """Read the predictions of a test, without running anything in the file.

    Args:
        path (str | os.PathLike): A file of ``tools/test.py --dump``.

    Returns:
        DumpedResults: What it holds.

    Raises:
        UserError: If it is no such file, is damaged, or holds something that could run
            code; if samples have no single label or differ in their classes.
    """
    samples = _load(Path(path), str(path))
    if not isinstance(samples, (list, tuple)) or not samples:
        kind = "no samples" if samples in ([], ()) else f"a {type(samples).__name__}"
        raise UserError(
            f"{path} holds {kind}; a list of predictions is needed, as tools/test.py "
            "--dump writes it."
        )
    scores, labels, names = [], [], []
    for number, sample in enumerate(samples):
        score, label = _score_and_label(sample, f"{path}, sample {number}")
        if scores and len(score) != len(scores[0]):
            raise UserError(
                f"{path}, sample {number} has scores of {len(score)} classes, those "
                f"before it of {len(scores[0])}."
            )
        if len(samples) * len(score) > MOST_SCORES:
            raise UserError(
                f"{path} has {len(samples)} samples with scores of {len(score)} "
                f"classes; at most {MOST_SCORES} scores are read."
            )
        scores.append(score)
        labels.append(label)
        name = next((sample[k] for k in SOURCES if k in sample), None)
        if not isinstance(name, (str, type(None))):
            raise UserError(
                f"{path}, sample {number}: the name of its video is no text; dump the "
                "results again with tools/test.py --dump."
            )
        names.append(name)
    return DumpedResults(
        path=str(path),
        scores=np.stack(scores),
        labels=np.asarray(labels, dtype=np.int64),
        names=None if None in names else names,
    )


def match_samples(dumps: Sequence[DumpedResults]) -> list[DumpedResults]:
    """Bring the samples of several dumps into the order of the first.

    Samples are matched by the names of their videos, of which the folder that all
    videos of a dump are in and the suffix do not count: the frames of RGB and flow
    are in different places. Dumps without names are matched by their positions, if
    the labels at all positions agree.

    Args:
        dumps (Sequence[DumpedResults]): From :func:`read_results`.

    Returns:
        list[DumpedResults]: As many, with rows that belong together.

    Raises:
        UserError: If they are not of the same samples and classes.
    """
    first, *others = dumps
    matched = [first]
    for other in others:
        if other.num_classes != first.num_classes:
            raise UserError(
                f"{first.path} has {first.num_classes} classes, but {other.path} has "
                f"{other.num_classes}; only results of the same classes can be fused."
            )
        if first.names and other.names:
            order = _order(first, other)
        elif len(first.labels) != len(other.labels):
            raise UserError(
                f"{first.path} has {len(first.labels)} samples, but {other.path} has "
                f"{len(other.labels)}; results of the same samples are needed."
            )
        else:
            order = np.arange(len(other.labels))
        differing = np.flatnonzero(first.labels != other.labels[order])
        if len(differing):
            row = differing[0]
            which = f"sample {row}" + (f" ({first.names[row]})" if first.names else "")
            raise UserError(
                f"{first.path} and {other.path} are not of the same samples: {which} "
                f"has the label {first.labels[row]} in one and "
                f"{other.labels[order[row]]} in the other ({len(differing)} differ)."
            )
        matched.append(
            DumpedResults(
                path=other.path,
                scores=other.scores[order],
                labels=other.labels[order],
                names=other.names and [other.names[index] for index in order],
            )
        )
    return matched


def _order(first: DumpedResults, other: DumpedResults) -> np.ndarray:
    rows = defaultdict(list)
    # Lists may name a video twice; its samples are then matched in their order.
    for row, name in reversed(list(enumerate(_identities(other.names)))):
        rows[name].append(row)
    order, missing = [], []
    for name in _identities(first.names):
        if rows[name]:
            order.append(rows[name].pop())
        else:
            missing.append(name)
    left = [name for name, unused in rows.items() if unused]
    if missing or left:
        example = missing[0] if missing else left[0]
        lacking = other.path if missing else first.path
        raise UserError(
            f"{first.path} ({len(first.labels)} samples) and {other.path} "
            f"({len(other.labels)}) are not of the same samples: {lacking} has no "
            f"{example!r}, one of {max(len(missing), len(left))} that differ."
        )
    return np.asarray(order)


def _identities(names: Sequence[str]) -> list[str]:
    """Return names without their common folder and their suffixes."""
    paths = [PurePath(name) for name in names]
    folder = os.path.commonpath([path.parent for path in paths])
    return [path.relative_to(folder).with_suffix("").as_posix() for path in paths]


def _score_and_label(sample: Any, where: str) -> tuple[np.ndarray, int]:
    if not isinstance(sample, dict) or not {"pred_score", "gt_label"} <= set(sample):
        raise UserError(
            f"{where} has no pred_score and gt_label; give a file that tools/test.py "
            "--dump wrote for a recognizer."
        )
    score, label = (_array(sample[key]) for key in ("pred_score", "gt_label"))
    if score is None or score.ndim != 1 or len(score) < 2:
        raise UserError(
            f"{where}: pred_score must have one score for each class (two at least); "
            "set average_clips='prob' in the head of the config."
        )
    score = score.astype(np.float64)
    if not np.isfinite(score).all():
        raise UserError(f"{where} has scores that are not finite numbers.")
    if label is None or label.size != 1 or label.dtype.kind not in "iu":
        raise UserError(
            f"{where}: gt_label must be a single class; samples of several labels have "
            "no confusion matrix."
        )
    label = int(label.reshape(()))
    if not 0 <= label < len(score):
        raise UserError(
            f"{where} has the label {label}, but scores of {len(score)} classes "
            f"(labels 0 to {len(score) - 1})."
        )
    return score, label


def _array(value: Any) -> np.ndarray | None:
    if isinstance(value, torch.Tensor) and value.layout == torch.strided:
        value = value.detach().cpu()
        value = value.float() if value.dtype == torch.bfloat16 else value
        return value.numpy()
    if isinstance(value, (int, float, list, np.ndarray, np.generic)):
        try:
            array = np.asarray(value)
        except ValueError:
            return None
        return array if array.dtype.kind in "iuf" else None
    return None


def _load(path: Path, name: str) -> Any:
    if path.is_dir():
        raise UserError(f"{name} is a folder; give a file of predictions (.pkl).")
    if not path.exists():
        folder = path.absolute().parent
        siblings = [p.name for p in folder.glob("*.p*kl*")] if folder.is_dir() else []
        raise UserError(
            f"The results {name} do not exist{did_you_mean(path.name, siblings)}"
        )
    expect_regular(path, "file of results", MOST_BYTES)
    try:
        with open(path, "rb") as file:
            return _DataUnpickler(file).load()
    except RefusedError as error:
        raise UserError(
            f"{name} is refused, and nothing in it was run: besides predictions it "
            f"holds {error}, which can run code; dump the results again with "
            "tools/test.py --dump."
        ) from error
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"The results {name} cannot be read: {reason}.") from error
    except MemoryError as error:
        raise UserError(
            f"{name} holds more than fits in the memory; results of tools/test.py "
            "--dump are needed, or a machine with more memory."
        ) from error
    except Exception as error:
        # A damaged pickle raises errors of many kinds.
        raise UserError(
            f"{name} cannot be read as results: it is damaged, cut off or not a "
            f"pickle ({first_line(error)}); tools/test.py --dump writes them."
        ) from error


class RefusedError(Exception):
    """A pickle asks for something that is not data."""


class _DataUnpickler(pickle.Unpickler):
    """Reads tensors, arrays and plain values.

    What a pickle may call is made anew for each use: a pickle can set attributes of
    what it is given, which must not outlive it.
    """

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy._core.", "numpy.core.")  # numpy 2 and 1
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) not in _MAKERS:
            raise RefusedError(f"{module}.{name}")
        return lambda *args: _MAKERS[module, name](*args)

    def persistent_load(self, pid: Any) -> Any:
        raise RefusedError("a reference to something outside the file")


def _load_storage(content: bytes) -> Any:
    # torch's own loads these bytes, another pickle, without any check.
    try:
        return torch.load(io.BytesIO(content), "cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+) ", str(error))
        if found is None:
            raise
        raise RefusedError(found[1]) from error


def _rebuild_tensor(
    storage: Any, offset: int, size: tuple, stride: tuple, *_: Any
) -> torch.Tensor:
    """Make a tensor of a storage, without the hooks that a pickle may add."""
    whole = torch.empty(0, dtype=storage.dtype).set_(storage)
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if (
        min((offset, *size, *stride)) < 0
        or math.prod(size) > len(whole)
        or (0 not in size and last >= len(whole))
    ):
        raise ValueError("a tensor is larger than its storage")
    return whole.as_strided(size, stride, offset)


def _bytes_of(text: str = "", encoding: str = "latin1") -> bytes:
    """Make bytes as the second protocol of pickle, which MMEngine uses, keeps them."""
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError("bytes that are not kept as latin1")
    return text.encode("latin1")


def _array_of(buffer: bytes, dtype: np.dtype, shape: tuple, order: str) -> np.ndarray:
    """Make an array as the fifth protocol of pickle keeps it."""
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)


_MAKERS = {
    ("_codecs", "encode"): _bytes_of,
    ("builtins", "bytes"): _bytes_of,
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch.storage", "_load_from_bytes"): _load_storage,
    ("numpy", "dtype"): plain_dtype,
    ("numpy.core.multiarray", "_reconstruct"): empty_array,
    ("numpy.core.multiarray", "scalar"): numpy_scalar,
    ("numpy.core.numeric", "_frombuffer"): _array_of,
}
