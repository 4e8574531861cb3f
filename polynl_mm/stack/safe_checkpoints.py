"""Checkpoints are untrusted input: they load as data, and nothing in them runs.

Mends: MMEngine 0.10.7 calls ``torch.load`` without ``weights_only`` (on torch >= 2.6
it then cannot read its own checkpoints, on older ones it runs whatever the pickle
says), downloads with ``weights_only=False``, and its forks fall back to unsafe
loading. Here every scheme of MMEngine's ``CheckpointLoader`` loads with
``weights_only=True`` and an allow-list of what MMEngine itself stores.

No released MMEngine does this, so there is no version for which it switches itself
off; :func:`trust_checkpoints` switches it off for one process, on the user's word.
"""

import contextlib
import logging
import os
import os.path as osp
import pickle
import re
import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlparse

import mmengine
import numpy as np
import torch
from mmengine.dist import get_dist_info
from mmengine.fileio import get_file_backend
from mmengine.fileio import load as load_file
from mmengine.logging import HistoryBuffer, print_log
from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mmengine_checkpoint
from torch.utils._pytree import keystr, tree_flatten_with_path

from polynl_mm.stack import TRUST_OPTION
from polynl_mm.user_errors import UserError, did_you_mean, first_line

PLAIN_DTYPE = re.compile(r"[<>=|]?([iufc]\d+|b1|[?bBhHiIlLqQefdFD])")

# What damaged files make torch and zipfile raise.
_DAMAGE = (
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    KeyError,
    AttributeError,
    TypeError,
    IndexError,
    AssertionError,
    zipfile.BadZipFile,
)
_trusting = False


class CheckpointError(UserError):
    """A checkpoint cannot be read, must not be, or belongs to another model."""


def trust_checkpoints() -> None:
    """Let the checkpoints that this process loads run code (``--trust-checkpoint``).

    The risk is logged: a checkpoint is a pickle, and a pickle can do anything that
    the user who loads it can do.
    """
    global _trusting
    _trusting = True
    print_log(
        f"{TRUST_OPTION} is given: checkpoints load without the safety check, and a "
        "harmful one can read, change or send away anything that you can.",
        logger="current",
        level=logging.WARNING,
    )


def load_safely(
    file: str | os.PathLike | BinaryIO,
    map_location: Any = None,
    name: str | None = None,
) -> Any:
    """Load a checkpoint as data, without running anything in it.

    Args:
        file (str | os.PathLike | BinaryIO): The checkpoint.
        map_location (Any): As for ``torch.load``.
        name (str | None): What to call the file in errors; default its path.

    Returns:
        Any: What ``torch.save`` was given, mostly a dict with ``state_dict``.

    Raises:
        CheckpointError: If the file is missing, truncated, not a checkpoint, or
            holds objects other than weights and MMEngine's own records.
    """
    name = str(name or file)
    if isinstance(file, (str, os.PathLike)):
        file = osp.expanduser(file)
        _check_is_file(file, name)
    if _trusting:
        return torch.load(file, map_location=map_location, weights_only=False)
    check_records(file, name)
    try:
        with torch.serialization.safe_globals(_allowed_globals()):
            loaded = torch.load(file, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refusal(name, str(error)) from error
    except _DAMAGE as error:
        if isinstance(error, torch.cuda.OutOfMemoryError):
            raise
        raise CheckpointError(_unreadable(file, name)) from error
    check_tensors(loaded, name)
    return _without_instructions(loaded, name, file)


def check_tensors(loaded: Any, name: str) -> None:
    """Refuse tensors that are no plain numbers of their own in memory.

    Args:
        loaded (Any): What a checkpoint holds.
        name (str): What to call the file in errors.

    Raises:
        CheckpointError: If a tensor is sparse, quantised, on the meta device, or larger
            than what the file stores of it.
    """
    try:
        leaves = tree_flatten_with_path(loaded)[0]
    except RecursionError as error:
        raise CheckpointError(
            f"{name} is nested too deep to be a checkpoint."
        ) from error
    for path, value in leaves:
        if not isinstance(value, torch.Tensor):
            continue
        what = None
        if value.layout != torch.strided:
            what = f"a tensor of layout {value.layout}"
        elif value.is_quantized:
            what = "a quantised tensor"
        elif value.is_meta:
            what = "a tensor without numbers, of the meta device"
        elif value.numel() * value.element_size() > value.untyped_storage().nbytes():
            what = f"a tensor of {value.numel()} numbers of which it stores fewer"
        if what:
            raise CheckpointError(
                f"{name} holds {what} in {keystr(path)}; it must have plain tensors."
            )


def check_records(file: str | os.PathLike | BinaryIO, name: str) -> None:
    """Compare every record of a checkpoint with its checksum, which torch does not do.

    A flipped bit is otherwise loaded as another weight.

    Args:
        file (str | os.PathLike | BinaryIO): The checkpoint.
        name (str): What to call the file in errors.

    Raises:
        CheckpointError: If a record is damaged, compressed, or there twice, or if the
            file is a TorchScript archive.
    """
    with contextlib.ExitStack() as stack:
        if isinstance(file, (str, os.PathLike)):
            file = stack.enter_context(open(file, "rb"))
        start = file.read(4)
        file.seek(0)
        if start != b"PK\3\4":
            if start[:1] == b"\x80":
                print_log(
                    f"{name} is in torch's old format, which has no checksums: damage "
                    "to its weights would not be noticed.",
                    logger="current",
                    level=logging.WARNING,
                )
            return
        try:
            with zipfile.ZipFile(file) as archive:
                names = archive.namelist()
                is_script = any(r.endswith("/constants.pkl") for r in names)
                odd = [r for r in archive.infolist() if r.compress_type or r.is_dir()]
                damaged = None if odd else archive.testzip()
        except (*_DAMAGE, NotImplementedError, OverflowError, struct.error) as error:
            raise CheckpointError(_unreadable(file, name)) from error
        file.seek(0)
    if is_script:  # not left to torch: 2.5 loads it, whatever weights_only says
        raise CheckpointError(
            f"{name} is a TorchScript archive, which holds code; a checkpoint saved "
            "with torch.save is needed."
        )
    if odd or len(set(names)) != len(names):
        raise CheckpointError(
            f"{name} is a zip archive that torch.save did not write: its records are "
            "compressed, folders, or there twice."
        )
    if damaged is not None:
        raise CheckpointError(
            f"{name} is damaged: its record {damaged} does not have its checksum; copy "
            "or download it again."
        )


def check_exists(file: str) -> None:
    """Check early that a checkpoint argument names a file, if it is a local one.

    Args:
        file (str): A path, or an address such as ``https://...``.

    Raises:
        CheckpointError: If it does not exist; names similar files beside it.
    """
    if "://" not in file:
        _check_is_file(osp.expanduser(file), file)


def install_safe_loading() -> None:
    """Make all of MMEngine's checkpoint loading go through :func:`load_safely`."""
    for prefixes, loader in (
        ("", load_from_local),
        (("http://", "https://"), load_from_http),
        (("modelzoo://", "torchvision://"), load_from_torchvision),
        (("open-mmlab://", "openmmlab://"), load_from_openmmlab),
        ("mmcls://", load_from_mmcls),
        ((r"(\S+\:)?s3://", r"(\S+\:)?petrel://"), load_from_ceph),
        ("pavi://", load_from_pavi),
    ):
        CheckpointLoader.register_scheme(prefixes, loader, force=True)


def load_from_local(filename: str, map_location: Any = None) -> Any:
    """Load a checkpoint from a file."""
    return load_safely(filename, map_location)


def load_from_http(filename: str, map_location: Any = None, **_: Any) -> Any:
    """Load a checkpoint from the web through torch.hub's cache, rank 0 first."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    cached = folder / osp.basename(urlparse(filename).path)
    rank, world_size = get_dist_info()
    if rank == 0 and not cached.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _download(filename, cached)
    if world_size > 1:
        torch.distributed.barrier()
        if not cached.exists():  # another machine, with a cache of its own
            folder.mkdir(parents=True, exist_ok=True)
            _download(filename, cached)
    return load_safely(cached, map_location, name=f"{filename} (cached as {cached})")


def load_from_torchvision(filename: str, map_location: Any = None) -> Any:
    """Load torchvision's weights of a model by its name.

    MMEngine's own list of addresses has the names that configs use; torchvision itself
    is asked for newer ones only, so that it need not be installed.
    """
    name = filename.partition("://")[2]
    urls = load_file(osp.join(mmengine.__path__[0], "hub", "torchvision_0.12.json"))
    if name not in urls:
        with contextlib.suppress(ImportError):
            urls = mmengine_checkpoint.get_torchvision_models()
    return load_from_http(_look_up(name, urls, filename), map_location)


def load_from_openmmlab(filename: str, map_location: Any = None) -> Any:
    """Load a model of OpenMMLab's list by its name."""
    name = filename.partition("://")[2]
    name = mmengine_checkpoint.get_deprecated_model_names().get(name, name)
    url = _look_up(name, mmengine_checkpoint.get_external_models(), filename)
    if url.startswith(("http://", "https://")):
        return load_from_http(url, map_location)
    home = os.getenv("MMENGINE_HOME") or osp.join(
        os.getenv("XDG_CACHE_HOME", "~/.cache"), "mmengine"
    )
    return load_safely(osp.join(osp.expanduser(home), url), map_location)


def load_from_mmcls(filename: str, map_location: Any = None) -> Any:
    """Load the backbone of an MMClassification model by the model's name."""
    name = filename.partition("://")[2]
    url = _look_up(name, mmengine_checkpoint.get_mmcls_models(), filename)
    weights = load_from_http(url, map_location)
    weights = weights.get("state_dict", weights)
    prefix = "backbone."
    return {
        "state_dict": {
            key[len(prefix) :]: value
            for key, value in weights.items()
            if key.startswith(prefix)
        }
    }


def load_from_ceph(filename: str, map_location: Any = None) -> Any:
    """Load a checkpoint from an S3 or Petrel store."""
    import io

    backend = get_file_backend(filename, backend_args={"backend": "petrel"})
    with io.BytesIO(backend.get(filename)) as file:
        return load_safely(file, map_location, name=filename)


def load_from_pavi(filename: str, map_location: Any = None) -> Any:
    """Load a checkpoint from Pavi's model cloud."""
    try:
        from pavi import modelcloud
    except ImportError as error:
        raise CheckpointError(
            f"{filename} needs the package pavi, which is not installed; download "
            "the checkpoint and give its path."
        ) from error
    model = modelcloud.get(filename.partition("://")[2])
    with tempfile.TemporaryDirectory() as folder:
        path = osp.join(folder, model.name)
        model.download(path)
        return load_safely(path, map_location, name=filename)


def _look_up(name: str, urls: dict, given: str) -> str:
    if name not in urls:
        raise CheckpointError(
            f"{given} names no known checkpoint{did_you_mean(name, urls)}"
        )
    return urls[name]


def _download(url: str, target: Path) -> None:
    found = torch.hub.HASH_REGEX.search(target.name)
    try:
        # It writes under a temporary name and renames at the end.
        torch.hub.download_url_to_file(
            url, str(target), found.group(1) if found else None, os.isatty(0)
        )
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            f"{url} cannot be downloaded ({first_line(error)}); download it by other "
            f"means to {target}, or name a local file in its place (load_from=FILE or "
            "model.backbone.pretrained=FILE in --cfg-options)."
        ) from error


def _check_is_file(path: str, name: str) -> None:
    if osp.isdir(path):
        raise CheckpointError(f"{name} is a folder, not a checkpoint file.")
    if not osp.exists(path):
        folder = Path(path).absolute().parent
        if not folder.is_dir():
            reason = f" (nor does the folder {folder})"
        else:
            siblings = [p.name for p in folder.glob("*.pth")]
            reason = did_you_mean(osp.basename(path), siblings)
            if not reason and siblings:
                shown = ", ".join(sorted(siblings)[:5])
                reason = f"; the checkpoints in its folder are {shown}"
        raise CheckpointError(f"The checkpoint {name} does not exist{reason}")
    if osp.getsize(path) == 0:
        raise CheckpointError(f"The checkpoint {name} is an empty file.")


def _refusal(name: str, message: str) -> CheckpointError:
    found = re.search(r"GLOBAL (\S+) (?:was not an allowed|whose module)", message)
    if found is None:
        found = re.search(r"unrecognized function (.+?)(?: which belongs|$)", message)
    if found is not None:
        return CheckpointError(
            f"{name} is refused, and nothing in it was run: besides weights it holds "
            f"{found[1]}, which can run code; if you are sure of who made it, give "
            f"{TRUST_OPTION}."
        )
    detail = message.strip().splitlines()[-1] if message.strip() else ""
    known = re.search(r"WeightsUnpickler error:\s*(.+)", message)
    if known:
        detail = known[1]
    return CheckpointError(
        f"{name} is not a checkpoint that can be read safely, and nothing in it was "
        f"run ({detail.strip()[:200]})."
    )


def _unreadable(file: Any, name: str) -> str:
    with contextlib.ExitStack() as stack:
        if isinstance(file, (str, os.PathLike)):
            file = stack.enter_context(open(file, "rb"))
        file.seek(0)
        start = file.read(2)
    # torch.save writes a zip archive or, in its old form, a pickle.
    if start == b"PK" or start[:1] == b"\x80":
        return (
            f"{name} cannot be read as a checkpoint: it is truncated or damaged; copy "
            "or download it again."
        )
    return f"{name} is not a checkpoint: torch.save did not write it."


def _without_instructions(loaded: Any, name: str, file: Any) -> Any:
    """Drop records on which MMEngine would act: code to run, files to delete."""
    if not isinstance(loaded, dict):
        return loaded
    meta = loaded.get("meta")
    if isinstance(meta, dict) and "config" in meta:
        # Runner.resume executes this text as Python. MMEngine itself stores "cfg".
        del meta["config"]
        _say_dropped(name, "meta.config, which MMEngine would execute")
    hub = loaded.get("message_hub")
    info = hub.get("runtime_info") if isinstance(hub, dict) else None
    if isinstance(info, dict):
        # CheckpointHook deletes what these name once better or newer files exist.
        keep = info.get("keep_ckpt_ids")
        if keep is not None and not all(isinstance(step, int) for step in keep):
            del info["keep_ckpt_ids"]
            _say_dropped(name, "keep_ckpt_ids, which names files to delete")
        for key in [key for key in info if str(key).startswith("best_ckpt")]:
            if info[key] and not _is_checkpoint_beside(str(info[key]), file):
                del info[key]
                _say_dropped(name, f"{key}, which names a file of another folder")
    return loaded


def _is_checkpoint_beside(path: str, file: Any) -> bool:
    if not isinstance(file, (str, os.PathLike)):
        return False
    # The folders are resolved, not the files: deleting a link deletes only the link.
    same_folder = Path(path).parent.resolve() == Path(file).parent.resolve()
    return same_folder and path.endswith(".pth") and not osp.isdir(path)


def _say_dropped(name: str, what: str) -> None:
    print_log(f"{name}: ignored {what}.", logger="current", level=logging.WARNING)


def _allowed_globals() -> list:
    """Return what MMEngine's own checkpoints hold besides tensors.

    The numpy constructors are replaced by stricter ones: an array of plain numbers
    needs no structured or object dtype, whose unpickling numpy does not validate.
    """
    if not _ALLOWED:
        _ALLOWED.extend([HistoryBuffer, np.ndarray])
        _ALLOWED.extend({type(np.dtype(code)) for code in "?bBhHiIlLqQefdFD"})
        for package in ("numpy.core", "numpy._core"):  # numpy 1 and 2
            module = f"{package}.multiarray"
            _ALLOWED.append(_named(empty_array, module, "_reconstruct"))
            _ALLOWED.append(_named(numpy_scalar, module, "scalar"))
        _ALLOWED.append(_named(plain_dtype, "numpy", "dtype"))
        from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

        _ALLOWED.append(OneCycleParamScheduler)
        _ALLOWED.append(_named(_method, "builtins", "getattr"))
    return _ALLOWED


_ALLOWED: list = []


def _named(function: Callable, module: str, name: str) -> Callable:
    """Return the function under the name that a pickle knows it by.

    torch < 2.6 has no other way to allow one global under another's name.
    """

    def allowed(*args):
        return function(*args)

    allowed.__module__, allowed.__name__, allowed.__qualname__ = module, name, name
    return allowed


def plain_dtype(code: str, *_: bool) -> np.dtype:
    """Stand in for ``numpy.dtype`` in a pickle, for plain numbers only.

    Args:
        code (str): numpy's code of the type, such as ``"f8"``.

    Returns:
        numpy.dtype: The type.

    Raises:
        UnpicklingError: If it is a structured or object type.
    """
    if not isinstance(code, str) or not PLAIN_DTYPE.fullmatch(code):
        raise pickle.UnpicklingError(f"numpy dtype {code!r} is not a plain number")
    return np.dtype(code)  # not a copy: numpy then ignores the pickled dtype state


def empty_array(subtype: type, *_: Any) -> np.ndarray:
    """Stand in for numpy's ``_reconstruct`` in a pickle.

    Args:
        subtype (type): ``numpy.ndarray``.

    Returns:
        numpy.ndarray: An empty array, which the pickle's state then fills.

    Raises:
        UnpicklingError: If another type is asked for.
    """
    if subtype is not np.ndarray:
        raise pickle.UnpicklingError(f"numpy array of type {subtype}")
    return np.ndarray((0,), np.int8)


def numpy_scalar(dtype: np.dtype, data: bytes) -> np.generic:
    """Stand in for numpy's ``scalar`` in a pickle.

    Args:
        dtype (numpy.dtype): From :func:`plain_dtype`.
        data (bytes): One number.

    Returns:
        numpy.generic: The number.
    """
    return np.frombuffer(data, dtype=dtype, count=1)[0]


def _method(owner: type, name: str) -> Callable:
    """Stand in for ``getattr``, for the methods that MMEngine's records refer to."""
    from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

    allowed = {
        HistoryBuffer: ("min", "max", "current", "mean"),
        OneCycleParamScheduler: ("_annealing_cos", "_annealing_linear"),
    }
    if not isinstance(owner, type) or name not in allowed.get(owner, ()):
        raise pickle.UnpicklingError(
            f"Unsupported global: GLOBAL getattr({getattr(owner, '__name__', owner)},"
            f"{name!r}) was not an allowed global"
        )
    return getattr(owner, name)
