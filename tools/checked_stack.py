"""Imported first by the tools: says in one sentence what cannot be imported.

``import polynl_mm`` checks the stack, but what the tools import beside it would fail
first, with a traceback. So would Ctrl-C during the seconds that imports take.
"""

import os
import sys
import time


def _report(kind: type, error: BaseException, trace) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("Interrupted.", file=sys.stderr, flush=True)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _report

try:
    import polynl_mm  # noqa: F401
except ImportError as error:
    if os.environ.get("POLYNL_DEBUG", "0") not in ("", "0"):
        raise
    if os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) != "0":
        # Rank 0 mostly says the same, and the launcher then ends this rank.
        time.sleep(3)
    sentence = " ".join(str(error).split())
    if getattr(error, "name", None) == "polynl_mm":
        sentence = (
            f"polynl_mm is not installed in {sys.executable}; source .venv/bin/activate"
            " (made by tools/quickstart.sh), or pip install -e . here."
        )
    print(f"Error: {sentence}", file=sys.stderr, flush=True)
    sys.exit(2)
