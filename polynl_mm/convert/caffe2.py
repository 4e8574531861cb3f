"""Reading the Caffe2 files of PySlowFast's model zoo (``.pkl``), as untrusted input.

They are pickles of numpy arrays under Caffe2's names. Nothing but what makes arrays of
plain numbers is looked up, so that a harmful file is refused before it does anything.
"""

import io
import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polynl_mm.stack.safe_checkpoints import PLAIN_DTYPE, CheckpointError

# What the solver stores beside the weights.
NOT_WEIGHTS = re.compile(r".*_momentum$|lr$|model_iter$|.*_iter$")
NORM = {"s": "weight", "b": "bias", "rm": "running_mean", "riv": "running_var"}
AFFINE = {"w": "weight", "b": "bias"}
# Caffe2's names, without their last part, and PySlowFast's; t_ is the fast pathway.
NAMES = (
    (r"(?P<t>t_)?conv1", "s1.pathway{p}_stem.conv", AFFINE),
    (r"(?P<t>t_)?res_conv1_bn", "s1.pathway{p}_stem.bn", NORM),
    (r"t_pool1_subsample", "s1_fuse.conv_f2s", AFFINE),
    (r"t_pool1_subsample_bn", "s1_fuse.bn", NORM),
    (r"t_res(\d)_\d+_branch2c_bn_subsample", "s{0}_fuse.conv_f2s", AFFINE),
    (r"t_res(\d)_\d+_branch2c_bn_subsample_bn", "s{0}_fuse.bn", NORM),
    (r"(?P<t>t_)?res(\d)_(\d+)_branch1", "s{1}.pathway{p}_res{2}.branch1", AFFINE),
    (r"(?P<t>t_)?res(\d)_(\d+)_branch1_bn", "s{1}.pathway{p}_res{2}.branch1_bn", NORM),
    (
        r"(?P<t>t_)?res(\d)_(\d+)_branch2([abc])",
        "s{1}.pathway{p}_res{2}.branch2.{3}",
        AFFINE,
    ),
    (
        r"(?P<t>t_)?res(\d)_(\d+)_branch2([abc])_bn",
        "s{1}.pathway{p}_res{2}.branch2.{3}_bn",
        NORM,
    ),
    (
        r"nonlocal_conv(\d)_(\d+)_(theta|phi|g|out)",
        "s{0}.pathway0_nonlocal{1}.conv_{2}",
        AFFINE,
    ),
    (r"nonlocal_conv(\d)_(\d+)_bn", "s{0}.pathway0_nonlocal{1}.bn", NORM),
    (r"pred", "head.projection", AFFINE),
)


def read_caffe2(file: str | os.PathLike) -> tuple[dict[str, Tensor], list[str]]:
    """Read a Caffe2 file of PySlowFast's model zoo.

    Args:
        file (str | os.PathLike): The ``.pkl`` file.

    Returns:
        tuple[dict[str, Tensor], list[str]]: The weights under PySlowFast's names, and
        the names that are no weights, or of no ResNet of PySlowFast.

    Raises:
        CheckpointError: If it is not such a file, or holds anything but numbers.
    """
    blobs = _load_arrays(Path(file))
    weights, others = {}, []
    for name, array in blobs.items():
        key = pyslowfast_name(name)
        if key is None:
            others.append(name)
            continue
        value = torch.from_numpy(np.ascontiguousarray(array))
        if key.endswith("weight") and value.dim() > 1 and "head." not in key:
            value = value.reshape(*value.shape, *(1,) * (5 - value.dim()))
        weights[key] = value
    if not weights:
        raise CheckpointError(f"{file} holds no weight of a ResNet of PySlowFast.")
    return weights, others


def pyslowfast_name(name: str) -> str | None:
    """Return PySlowFast's name of a Caffe2 weight.

    Args:
        name (str): Such as ``res3_1_branch2a_bn_riv``.

    Returns:
        str | None: Such as ``s3.pathway0_res1.branch2.a_bn.running_var``.
    """
    if NOT_WEIGHTS.fullmatch(name):
        return None
    stem, _, kind = name.rpartition("_")
    for pattern, template, kinds in NAMES:
        match = re.fullmatch(pattern, stem)
        if match and kind in kinds:
            fast = bool(match.groupdict().get("t"))
            return f"{template.format(*match.groups(), p=int(fast))}.{kinds[kind]}"
    return None


def _load_arrays(file: Path) -> dict[str, np.ndarray]:
    if not file.is_file():
        raise CheckpointError(f"The checkpoint {file} does not exist.")
    try:
        loaded = _ArrayUnpickler(
            io.BytesIO(file.read_bytes()), encoding="latin1"
        ).load()
    except CheckpointError as error:
        raise CheckpointError(f"{file} {error}") from error
    except Exception as error:  # pickle raises errors of any kind on damaged files
        raise CheckpointError(
            f"{file} cannot be read as a Caffe2 file of PySlowFast: it is damaged, or "
            "something else (a checkpoint of PyTorch ends in .pyth or .pth)."
        ) from error
    blobs = loaded.get("blobs") if isinstance(loaded, dict) else None
    if not isinstance(blobs, dict):
        raise CheckpointError(f"{file} has no blobs, as Caffe2 files of PySlowFast do.")
    return {
        str(name): array
        for name, array in blobs.items()
        if isinstance(array, np.ndarray) and array.dtype.kind in "fiu"
    }


class _ArrayUnpickler(pickle.Unpickler):
    """Makes arrays of plain numbers and builtin containers, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            module = "multiarray"
        found = _ALLOWED.get((module, name))
        if found is None:
            raise CheckpointError(
                f"is refused, and nothing in it was run: besides numbers it holds "
                f"{module}.{name}, which can run code."
            )
        return found


def _sealed(function: Callable) -> Any:
    """Return a callable of which a pickle can change nothing."""
    members = {"__slots__": (), "__call__": staticmethod(function)}
    return type(function.__name__, (), members)()


def _dtype(code: str, *_: Any) -> np.dtype:
    if not isinstance(code, str) or not PLAIN_DTYPE.fullmatch(code):
        raise CheckpointError(
            f"is refused: it holds an array of {str(code)[:40]!r}, not of numbers."
        )
    return np.dtype(code)


def _empty_array(*_: Any) -> np.ndarray:
    return np.ndarray((0,), np.int8)


def _scalar(dtype: np.dtype, data: bytes | str) -> Any:
    data = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(data, dtype=dtype, count=1)[0]


def _encode(text: str, encoding: str = "latin1") -> bytes:
    return text.encode("latin1")


def _ndarray(*_: Any) -> None:
    raise CheckpointError("is refused: it makes an array in an unknown way.")


_ALLOWED = {
    ("multiarray", "_reconstruct"): _sealed(_empty_array),
    ("multiarray", "scalar"): _sealed(_scalar),
    ("numpy", "ndarray"): _sealed(_ndarray),  # an argument of _reconstruct
    ("numpy", "dtype"): _sealed(_dtype),
    ("_codecs", "encode"): _sealed(_encode),
    ("collections", "OrderedDict"): _sealed(OrderedDict),
}
