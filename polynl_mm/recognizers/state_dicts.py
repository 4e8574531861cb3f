"""State dicts in checkpoint files: reading them as untrusted input, writing them."""

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from polynl_mm.atomic_files import renamed_when_complete
from polynl_mm.stack.safe_checkpoints import CheckpointError, load_safely


def read_state_dict(file: str | os.PathLike) -> dict[str, Tensor]:
    """Read the weights of a checkpoint, with ``state_dict`` or bare.

    Args:
        file (str | os.PathLike): The checkpoint.

    Returns:
        dict[str, Tensor]: The weights on the CPU, without DDP's ``module.``.

    Raises:
        CheckpointError: If the file cannot be read, or holds no weights.
    """
    return find_state_dict(load_safely(file, "cpu"), str(file), ("state_dict",))


def find_state_dict(loaded: Any, name: str, keys: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the weights in what a checkpoint file holds.

    Args:
        loaded (Any): What was loaded.
        name (str): The file, for the sentence.
        keys (tuple[str, ...]): Where the weights may be; else they are ``loaded``.

    Returns:
        dict[str, Tensor]: The weights, without DDP's ``module.``.

    Raises:
        CheckpointError: If there are none, or something else is among them.
    """
    found = loaded
    if isinstance(loaded, Mapping):
        found = next((loaded[key] for key in keys if key in loaded), loaded)
    if not isinstance(found, Mapping) or not found:
        raise CheckpointError(
            f"{name} holds no weights: neither {' nor '.join(keys)}, nor tensors."
        )
    for key, value in found.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"{name} is no state dict: its entry {str(key)[:60]!r} is a "
                f"{type(value).__name__}, not a tensor."
            )
    return {str(key).removeprefix("module."): found[key] for key in found}


def write_checkpoint(
    target: str | os.PathLike, weights: Mapping[str, Tensor], **records: Any
) -> None:
    """Write a checkpoint as MMEngine's tools read it, whole or not at all.

    The same content gives the same bytes, whatever the file is called.

    Args:
        target (str | os.PathLike): The file to write.
        weights (Mapping[str, Tensor]): The state dict.
        **records: What else to store, such as ``meta``.
    """
    # Clones, because a view is saved with the whole of what it looks into.
    weights = {key: value.detach().cpu().clone() for key, value in weights.items()}
    with renamed_when_complete(target) as partial, open(partial, "wb") as file:
        # To an open file: given a path, torch stores its name in the archive.
        torch.save({**records, "state_dict": weights}, file)
