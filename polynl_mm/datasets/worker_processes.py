"""How a worker process of ours ends: with its parent, and not before."""

import multiprocessing
import os
import signal
import threading


def stop_with_parent() -> None:
    """Leave Ctrl-C to the parent process, and end when it has been killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch():
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
