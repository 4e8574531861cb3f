"""torchrun, saying in one sentence why a run ended.

Takes torchrun's arguments. A rank that ended with an error has said why; torchrun
would add two pages of tracebacks of its own.
"""

import logging
import os
import re
import shutil
import signal
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

if find_spec("torch") is None:
    import checked_stack  # noqa: F401  (says so; the ranks check the rest)

from torch.distributed import DistError, run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

EXIT_USER_ERROR = 2
LOGS = "polynl_mm_launch_"


def explain(error: DistError) -> str:
    """Say why the processes cannot meet.

    Args:
        error (DistError): What torchrun raised.

    Returns:
        str: One sentence.
    """
    first = (str(error).splitlines() or [""])[0]
    if "EADDRINUSE" in str(error):
        found = re.search(r"port: (\d+)", str(error))
        port = f"the port {found[1]}" if found else "the port"
        return (
            f"{port} is in use on this machine, perhaps by another run; set PORT to a "
            "free one."
        )
    return (
        "the processes cannot meet; check MASTER_ADDR, PORT and NODE_RANK on every "
        f"machine ({first[:200]})."
    )


def remove_leftovers() -> None:
    """Remove the folders of launchers that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{LOGS}*"):
        owner = re.match(rf"{LOGS}(\d+)_", folder.name)
        try:
            os.kill(int(owner[1]), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except (OSError, TypeError, OverflowError):
            continue  # another user's, or nobody's


def main() -> int:
    """Run torchrun.

    Returns:
        int: 0, or 2 after an error of the user's (also a port that is in use or a
        first machine that does not answer), or 1 after a rank died, or
        128 + the signal that ended the launcher.
    """
    if os.environ.get("POLYNL_DEBUG", "0") in ("", "0"):
        logging.getLogger("torch").setLevel(logging.CRITICAL)
    remove_leftovers()
    try:
        with tempfile.TemporaryDirectory(prefix=f"{LOGS}{os.getpid()}_") as logs:
            # torchrun's own folder, which it needs and never removes.
            run.main(["--log-dir", logs, *sys.argv[1:]])
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode == EXIT_USER_ERROR:
            return EXIT_USER_ERROR
        how = f"ended with exit status {failure.exitcode}"
        if failure.exitcode < 0:
            how = f"was killed by {signal.Signals(-failure.exitcode).name}"
        print(
            f"Error: rank {rank} (process {failure.pid}) {how}, so all ranks were "
            "ended; what its checkpoints hold goes on with --resume.",
            file=sys.stderr,
        )
        return 1
    except DistError as error:
        if os.environ.get("POLYNL_DEBUG", "0") not in ("", "0"):
            raise
        print(f"Error: {explain(error)}", file=sys.stderr)
        return EXIT_USER_ERROR
    except SignalException as error:
        print(f"{error.sigval.name}: all ranks were ended.", file=sys.stderr)
        return 128 + int(error.sigval)
    return 0


if __name__ == "__main__":
    sys.exit(main())
