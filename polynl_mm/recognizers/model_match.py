"""Checks that a checkpoint belongs to the model that is to load it.

MMEngine logs what does not match and goes on with random weights, which turns a
mixed-up file name into a bad accuracy. Testing needs every weight; training may take
over a part (another head, a backbone only), but not nothing.
"""

from dataclasses import dataclass, field

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS

from polynl_mm.stack.safe_checkpoints import CheckpointError


@dataclass
class Match:
    """How a state dict fits a model.

    Attributes:
        matched (int): How many weights of the model the state dict supplies.
        missing (list[str]): Keys of the model that it lacks.
        unexpected (list[str]): Keys of it that the model lacks.
        reshaped (list[str]): Keys of both with unequal shapes, with the shapes.
    """

    matched: int = 0
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    reshaped: list[str] = field(default_factory=list)

    @property
    def exact(self) -> bool:
        """Whether every weight has its place and every place its weight."""
        return not (self.missing or self.unexpected or self.reshaped)

    def __str__(self) -> str:
        parts = []
        for keys, what in (
            (self.missing, "missing"),
            (self.unexpected, "unexpected"),
            (self.reshaped, "of another shape"),
        ):
            if keys:
                parts.append(f"{len(keys)} keys {what} (such as {keys[0]})")
        return ", ".join(parts) or "all keys match"


def compare(model: torch.nn.Module, checkpoint: dict) -> Match:
    """Compare a checkpoint with a model by key and shape.

    Args:
        model (torch.nn.Module): The model; a wrapper is looked through. What of
            the checkpoint fits may be loaded into it.
        checkpoint (dict): What a checkpoint file holds, with ``state_dict`` or bare.

    Returns:
        Match: What fits and what does not.
    """
    given = _weights_of(checkpoint)
    # Under FSDP, a process's own weights are parts of them.
    own = getattr(model, "whole_shapes", None)
    if own is None:
        if is_model_wrapper(model):
            model = model.module
        own = {key: _shape(value) for key, value in model.state_dict().items()}
    match = Match()
    for key, shape in own.items():
        if key not in given:
            match.missing.append(key)
        elif shape != _shape(given[key]):
            match.reshaped.append(f"{key}: {_shape(given[key])} for {shape}")
        else:
            match.matched += 1
    match.unexpected = [
        key
        for key in given
        if key not in own and not _is_harmless(model, key, given[key])
    ]
    # Batch norms of old checkpoints have no such counter.
    match.missing = [k for k in match.missing if "num_batches_tracked" not in k]
    if match.missing or match.unexpected:
        _take_out_renamed(model, given, match)
    return match


def check_finite(checkpoint: dict, file_name: str) -> None:
    """Refuse weights that are no numbers: they give scores that name no class.

    Args:
        checkpoint (dict): What the file holds.
        file_name (str): The checkpoint's path.

    Raises:
        CheckpointError: Naming a weight that has NaN or infinite numbers, or none of
            the kind that weights are.
    """
    tensors = {
        key: value
        for key, value in _weights_of(checkpoint).items()
        if isinstance(value, torch.Tensor)
    }
    whole = [
        key
        for key, value in tensors.items()
        if not value.is_floating_point() and key.endswith((".weight", ".bias"))
    ]
    if whole:
        raise CheckpointError(
            f"The checkpoint {file_name} holds {tensors[whole[0]].dtype} in "
            f"{len(whole)} of its weights (such as {whole[0]}), where weights are "
            "floating-point numbers; it was cast, and has lost what they were."
        )
    bad = [
        key
        for key, value in tensors.items()
        if value.is_floating_point() and not value.isfinite().all()
    ]
    if bad:
        raise CheckpointError(
            f"The checkpoint {file_name} holds NaN or infinite numbers in {len(bad)} "
            f"of its weights (such as {bad[0]}): its training diverged; take an "
            "earlier checkpoint."
        )


def check_complete(model, checkpoint: dict, config_name: str, file_name: str) -> None:
    """Refuse a checkpoint that is not of exactly this model.

    Args:
        model (torch.nn.Module): The model that is to load it.
        checkpoint (dict): What the file holds.
        config_name (str): The config the model was built from.
        file_name (str): The checkpoint's path.

    Raises:
        CheckpointError: Naming both files, how many keys do not match, and examples.
    """
    check_finite(checkpoint, file_name)
    match = compare(model, checkpoint)
    if not match.exact:
        raise CheckpointError(
            f"The checkpoint {file_name} is of another model than {config_name}: "
            f"{match}; give the config that it was trained with."
        )


def check_anything_fits(
    model, checkpoint: dict, config_name: str, file_name: str
) -> None:
    """Refuse a checkpoint to start training from that fits nowhere.

    Args:
        model (torch.nn.Module): The model that is to load it.
        checkpoint (dict): What the file holds.
        config_name (str): The config the model was built from.
        file_name (str): The checkpoint's path.

    Raises:
        CheckpointError: If not one weight matches by name and shape.
    """
    check_finite(checkpoint, file_name)
    match = compare(model, checkpoint)
    if match.matched == 0:
        raise CheckpointError(
            f"load_from={file_name} has nothing in common with the model of "
            f"{config_name}: {match}."
        )


@HOOKS.register_module()
class CheckpointMatchHook(Hook):
    """Checks every checkpoint that the runner loads against its model.

    Args:
        config_name (str): The config file, for the sentence.
        complete (bool): Whether every weight must match (testing, resuming), or at
            least one (starting from another model).
        file_name (str | None): The checkpoint, for the sentence.
    """

    # After EMAHook, which exchanges weights in the loaded checkpoint.
    priority = "LOWEST"

    def __init__(self, config_name: str, complete: bool, file_name: str | None = None):
        self.config_name = config_name
        self.complete = complete
        self.file_name = file_name or "that was loaded"

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Check the checkpoint before its weights are copied."""
        check = check_complete if self.complete else check_anything_fits
        check(runner.model, checkpoint, self.config_name, self.file_name)


def _weights_of(checkpoint: dict) -> dict:
    if not isinstance(checkpoint, dict):
        raise CheckpointError(
            f"The checkpoint holds a {type(checkpoint).__name__} where a dict of "
            "weights is needed; save model.state_dict()."
        )
    weights = checkpoint.get("state_dict", checkpoint)
    if not isinstance(weights, dict):
        raise CheckpointError("The checkpoint's state_dict is not a dict of weights.")
    return {str(key).removeprefix("module."): value for key, value in weights.items()}


def _is_harmless(model: torch.nn.Module, key: str, value) -> bool:
    """Return whether an extra entry has nothing to do with what the model computes."""
    parent, _, name = key.rpartition(".")
    if name in ("total_ops", "total_params"):  # left behind by FLOP counters
        return True
    # MMAction2 before 1.0 stored what the config says of normalisation.
    if parent != "data_preprocessor" or name not in ("mean", "std"):
        return False
    own = getattr(getattr(model, "data_preprocessor", None), name, None)
    if not isinstance(own, torch.Tensor) or not isinstance(value, torch.Tensor):
        return False
    own, value = own.flatten().cpu().double(), value.flatten().cpu().double()
    return own.shape == value.shape and torch.allclose(own, value)


def _shape(value) -> tuple:
    return tuple(getattr(value, "shape", ()))


def _take_out_renamed(model: torch.nn.Module, given: dict, match: Match) -> None:
    """Let modules that read older names have their say, by loading for real."""
    try:
        missing, unexpected = model.load_state_dict(given, strict=False)
    except (RuntimeError, TypeError, AttributeError):
        return  # shapes differ too, or values are no tensors: the lists stand
    match.matched += len(set(match.missing) - set(missing))
    match.missing = list(missing)
    match.unexpected = [
        key for key in unexpected if not _is_harmless(model, key, given[key])
    ]
