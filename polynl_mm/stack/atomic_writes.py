"""What MMEngine writes to local disks appears whole or not at all.

Mends: MMEngine's local backend writes checkpoints, and its config writes itself, in
place, so a process killed meanwhile, or a full disk, leaves half a file under the final
name. Switches itself off where they are no longer MMEngine's own (a newer release, or
the user's).
"""

import functools
import os

from mmengine.config import Config
from mmengine.fileio import LocalBackend, get_file_backend, register_backend

from polynl_mm.atomic_files import renamed_when_complete


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


def install_atomic_writes() -> None:
    """Make what MMEngine writes to local disks appear whole or not at all."""
    current = get_file_backend("checkpoint.pth")
    if type(current) is LocalBackend:
        register_backend("local", AtomicLocalBackend, force=True, prefixes="")
    if Config.dump.__module__.startswith("mmengine.") and not hasattr(
        Config.dump, "__wrapped__"
    ):
        Config.dump = _make_atomic(Config.dump)


def _make_atomic(dump):
    @functools.wraps(dump)
    def dump_whole(self, file: str | os.PathLike | None = None):
        if file is None or not str(file).endswith(".py"):
            return dump(self, file)  # as text, or through the file backend
        with renamed_when_complete(file) as partial:
            return dump(self, str(partial))

    return dump_whole
