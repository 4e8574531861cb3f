"""torchrun, saying in one sentence why a run ended.

Takes torchrun's arguments. A rank that ended with an error has said why; torchrun
would add two pages of tracebacks of its own.
"""

import logging
import os
import signal
import sys

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

EXIT_USER_ERROR = 2


def main() -> int:
    """Run torchrun.

    Returns:
        int: 0, or 2 after an error of the user's, or 1 after a rank died, or
        128 + the signal that ended the launcher.
    """
    if os.environ.get("POLYNL_DEBUG", "0") in ("", "0"):
        logging.getLogger("torch").setLevel(logging.CRITICAL)
    try:
        run.main()
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode == EXIT_USER_ERROR:
            return EXIT_USER_ERROR
        how = f"ended with exit status {failure.exitcode}"
        if failure.exitcode < 0:
            how = f"was killed by {signal.Signals(-failure.exitcode).name}"
        print(
            f"Error: rank {rank} (process {failure.pid}) {how}, so all ranks were "
            "ended; resume with --resume.",
            file=sys.stderr,
        )
        return 1
    except SignalException as error:
        print(f"{error.sigval.name}: all ranks were ended.", file=sys.stderr)
        return 128 + int(error.sigval)
    return 0


if __name__ == "__main__":
    sys.exit(main())
