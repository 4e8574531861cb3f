"""Publishing a checkpoint: what is needed to use it, under a name that can be checked.

A training checkpoint also holds the optimizer, the schedules and the records of the
run, which are twice the size of the weights and of no use to others.
"""

import datetime
import hashlib
import secrets
from pathlib import Path
from typing import Any

from polynl_mm.atomic_files import expect_outputs
from polynl_mm.recognizers.state_dicts import find_state_dict, write_checkpoint
from polynl_mm.stack.safe_checkpoints import load_safely
from polynl_mm.user_errors import UserError

# Buffers that MMAction2 no longer stores, and takes from the config.
NOT_STORED = ("data_preprocessor.mean", "data_preprocessor.std")
# Of meta: hook_msgs names files of the machine that trained.
NOT_PUBLISHED = ("hook_msgs",)


def publish(
    source: str,
    target: str,
    with_config: bool = True,
    date: datetime.date | None = None,
) -> tuple[Path, list[str]]:
    """Write a checkpoint's weights and meta under a name with a date and a hash.

    With an EMA, the published weights are the averaged ones: MMEngine stores them as
    ``state_dict``, and those that were being trained as ``ema_state_dict``.

    Args:
        source (str): The checkpoint of a training.
        target (str): Where to write; ``x.pth`` becomes ``x_YYYYMMDD-HASH.pth``.
        with_config (bool): Keep the config's text, which names the paths of its data.
        date (datetime.date | None): The date in the name; default today.

    Returns:
        tuple[Path, list[str]]: The file, and the names of the records left out.

    Raises:
        CheckpointError: If the source cannot be read safely or holds no weights.
        UserError: If the target is no ``.pth`` file, or cannot be written.
    """
    target_path = Path(target)
    if target_path.suffix != ".pth":
        raise UserError(f"The published file is named NAME.pth, not {target}.")
    expect_outputs({"target": target})
    loaded = load_safely(source, "cpu")
    weights = find_state_dict(loaded, source, ("state_dict",))
    weights = {key: weights[key] for key in weights if key not in NOT_STORED}
    meta = _published_meta(loaded.get("meta"), with_config)
    bare = "state_dict" not in loaded
    left_out = [] if bare else sorted(set(loaded) - {"state_dict", "meta"})
    date = date or datetime.date.today()
    unnamed = target_path.with_name(f"{target_path.stem}_{secrets.token_hex(8)}.pth")
    write_checkpoint(unnamed, weights, meta=meta)
    try:
        digest = hashlib.sha256(unnamed.read_bytes()).hexdigest()
        named = f"{target_path.stem}_{date:%Y%m%d}-{digest[:8]}.pth"
        return unnamed.replace(target_path.with_name(named)), left_out
    finally:
        unnamed.unlink(missing_ok=True)


def _published_meta(meta: Any, with_config: bool) -> dict:
    if not isinstance(meta, dict):
        return {}
    dropped = NOT_PUBLISHED if with_config else (*NOT_PUBLISHED, "cfg")
    return {key: value for key, value in meta.items() if key not in dropped}
