"""Keeps from users what the stack says about itself, and what is not so on a CPU.

Mends: mmengine 0.10.7, mmcv 2.1.0 and mmaction2 1.2.0 greet every run with warnings of
deprecated parts of their own, which no user of them can act on, and call the processes
of a CPU run GPUs. Only reading a config for a tool asks for this: a program that
imports polynl_mm keeps its warnings.
"""

import logging
import re
import warnings

import torch
from mmengine.logging import MMLogger

WARNINGS = (
    "pkg_resources is deprecated",
    "Fail to import ``MultiScaleDeformableAttention``",
    "`broadcast_buffers` is deprecated",
    "`TorchScript` support for functional optimizers is deprecated",
)
RECORDS = re.compile(r'"FileClient" will be deprecated|"HardDiskBackend" is the alias')


def quieten_stack() -> None:
    """Drop these warnings and records in this process; safe to call again."""
    for start in WARNINGS:
        warnings.filterwarnings("ignore", start)
    original = MMLogger.__init__
    if original.__name__ == "init_with_filter":
        return

    def init_with_filter(self: MMLogger, *args, **kwargs) -> None:
        original(self, *args, **kwargs)
        self.addFilter(is_for_users)

    MMLogger.__init__ = init_with_filter
    for logger in MMLogger._instance_dict.values():
        logger.addFilter(is_for_users)


def is_for_users(record: logging.LogRecord) -> bool:
    """Tell whether a log record concerns a user; what it calls a GPU is set right.

    Args:
        record (logging.LogRecord): Of an MMLogger.

    Returns:
        bool: False for what the stack says about itself.
    """
    text = record.getMessage()
    if RECORDS.search(text):
        return False
    if "GPU number: " in text and not torch.cuda.is_available():
        record.msg, record.args = text.replace("GPU number: ", "Processes (CPU): "), ()
    return True
