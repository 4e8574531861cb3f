"""One run in a work dir at a time, and a word where an earlier one was there.

Mends: MMEngine lets two runs write into one folder, where each overwrites what the
other resumes from, and a new run begin among an old one's checkpoints without a word.
"""

import fcntl
import logging
import os
from pathlib import Path
from typing import TextIO

from mmengine.logging import print_log

from polynl_mm.atomic_files import remove_leftovers
from polynl_mm.user_errors import UserError

LOCK = ".running"
# Held as long as the process lives; closing a file would give its lock up.
_held: list[TextIO] = []


def hold_work_dir(work_dir: str, resumes: bool) -> None:
    """Keep other runs of this moment out of a work dir, until this process ends.

    Args:
        work_dir (str): The folder of the run; it is made.
        resumes (bool): Whether this run goes on from what is there.

    Raises:
        UserError: If another run is writing to it, or it cannot be written to.
    """
    if int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0))) != 0:
        return  # the first process stands for all of them
    folder = Path(work_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / LOCK, "a+", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise _unwritable(work_dir, error) from error
    try:
        # A record lock: it ends with this process, whatever its data workers do.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        owner = file.read().strip() or "unknown"
        file.close()
        raise UserError(
            f"Another run (process {owner}) is writing to {work_dir}; give this one "
            "another --work-dir, or wait for that one's end."
        ) from error
    try:
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
    except OSError as error:
        raise _unwritable(work_dir, error) from error
    _held.append(file)
    remove_leftovers(folder)
    left = sorted(path.name for path in folder.glob("*.pth"))
    if left and not resumes:
        print_log(
            f"{work_dir} holds checkpoints of an earlier run (such as {left[-1]}), "
            "among which this one will write its own; --resume goes on from them, "
            "another --work-dir keeps them apart.",
            logger="current",
            level=logging.WARNING,
        )


def _unwritable(work_dir: str, error: OSError) -> UserError:
    return UserError(
        f"The work dir {work_dir} cannot be written to ({error.strerror or error}); "
        "give another --work-dir."
    )
