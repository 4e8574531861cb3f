"""Whether this process is a tool of ours, which reads its command line before torch."""

import re
import sys
from pathlib import Path

from polynl_mm.installation import PACKAGE, TOOLS

# The line by which a file in tools/ is a front: what it imports registers by itself.
FRONT = re.compile(r"^from polynl_mm\.\S+ import main$", re.MULTILINE)
CONSOLE_SCRIPT = "polynl-mm"


def is_tool() -> bool:
    """Say whether a front of tools/, or the front of all of them, was started.

    Returns:
        bool: False in every other program, and in processes that a tool spawns.
    """
    started = getattr(sys.modules.get("__main__"), "__file__", None)
    if started is None:
        return _module_that_is_run() == PACKAGE.name
    file = Path(started)
    if file.name == CONSOLE_SCRIPT:
        return True
    file = file.resolve()
    if file.suffix != ".py" or not file.is_relative_to(TOOLS.resolve()):
        return False
    return bool(FRONT.search(file.read_text(encoding="utf-8")))


def _module_that_is_run() -> str | None:
    """Return X of ``python -m X``, while its package is imported to find it."""
    if sys.argv[:1] != ["-m"]:
        return None
    return sys.orig_argv[-len(sys.argv)].removeprefix("-m")
