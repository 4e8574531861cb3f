"""What a rank does when another one has died: leave the explaining to the launcher.

Mends: the collectives of gloo fail at once with an error that looks like a bug of this
rank, and its traceback buries the launcher's sentence about the rank that died.
"""

import contextlib
import re
import time
from collections.abc import Iterator

from polynl_mm.user_errors import UserError

LOST_CONNECTION = re.compile(
    r"Connection (closed by peer|reset by peer|refused)|Broken pipe|"
    r"Timed out waiting \d+ms for|communicator was aborted|ncclRemoteError"
)
# The launcher looks after its ranks several times a second, and ends this one.
PATIENCE = 10.0


@contextlib.contextmanager
def explaining_lost_ranks() -> Iterator[None]:
    """Wait to be ended by the launcher where another rank cannot be reached.

    Raises:
        UserError: If the launcher does not end this process, as without torchrun.
    """
    try:
        yield
    except RuntimeError as error:
        if not LOST_CONNECTION.search(str(error)):
            raise
        time.sleep(PATIENCE)
        raise UserError(
            "Another rank has died or cannot be reached, and training cannot go on "
            "without it; its own output says why. Resume with --resume."
        ) from error
