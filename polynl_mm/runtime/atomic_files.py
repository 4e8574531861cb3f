"""Files appear whole or not at all: written under another name, then renamed.

Mends: MMEngine's local backend writes checkpoints in place, so a process killed
meanwhile leaves half a file under the final name. Switches itself off where the
local backend is no longer MMEngine's own class (a newer release, or the user's).
"""

import contextlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.fileio import LocalBackend, get_file_backend, register_backend

LEFTOVER = re.compile(r"\.(\d{1,9})-[0-9a-f]{6}\.part(\.|$)")


@contextlib.contextmanager
def renamed_when_complete(target: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside the target, renamed to it on success.

    Args:
        target (str | os.PathLike): The file to write; its folder is made.

    Yields:
        Path: Where to write. It keeps the target's suffix, is flushed to the disk
        before the rename, and is removed if the block raises.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    name = f".{target.stem}.{os.getpid()}-{secrets.token_hex(3)}.part{target.suffix}"
    partial = target.with_name(name)
    try:
        yield partial
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def remove_leftovers(folder: str | os.PathLike) -> None:
    """Remove the half-written files that processes killed meanwhile have left.

    Args:
        folder (str | os.PathLike): Where to look, also below. Files of processes that
            are alive stay.
    """
    for path in Path(folder).rglob(".*.part*"):
        found = LEFTOVER.search(path.name)
        if found and not _is_alive(int(found[1])):
            path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def write_json(target: str | os.PathLike, content: Any) -> None:
    """Write JSON to a file, whole or not at all.

    Args:
        target (str | os.PathLike): The file to write.
        content (Any): What to write; numpy and torch scalars become numbers.
    """
    with renamed_when_complete(target) as partial:
        text = json.dumps(content, indent=2, default=_plain_number)
        partial.write_text(text + "\n", encoding="utf-8")


class AtomicLocalBackend(LocalBackend):
    """MMEngine's local file backend, whose writes are never seen half done."""

    def put(self, obj: bytes, filepath: str | os.PathLike) -> None:
        """Write bytes to a file, whole or not at all."""
        with renamed_when_complete(filepath) as partial:
            partial.write_bytes(obj)

    def put_text(
        self, obj: str, filepath: str | os.PathLike, encoding: str = "utf-8"
    ) -> None:
        """Write text to a file, whole or not at all."""
        with renamed_when_complete(filepath) as partial:
            partial.write_text(obj, encoding=encoding)


def install_atomic_files() -> None:
    """Make what MMEngine writes to local disks appear whole or not at all."""
    current = get_file_backend("checkpoint.pth")
    if type(current) is LocalBackend:
        register_backend("local", AtomicLocalBackend, force=True, prefixes="")


def _plain_number(value: Any) -> Any:
    if hasattr(value, "item") and getattr(value, "size", 1) in (1,):
        return value.item()
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)
