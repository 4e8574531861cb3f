"""Lists of videos that begin with a byte-order mark, as some editors write them.

Mends: the datasets of MMAction2 1.2.0 take the mark for a part of the first path, whose
video is then missing. Where a list has none, nothing changes.
"""

import functools
from collections.abc import Callable


def ignore_byte_order_marks() -> None:
    """Let MMAction2's datasets read lists without their mark; safe to call again."""
    from mmaction.datasets import rawframe_dataset, video_dataset

    for module in (rawframe_dataset, video_dataset):
        if not hasattr(module.list_from_file, "__wrapped__"):
            module.list_from_file = _without_mark(module.list_from_file)


def _without_mark(read: Callable) -> Callable:
    @functools.wraps(read)
    def list_from_file(*args, **kwargs) -> list[str]:
        lines = read(*args, **kwargs)
        return [line.removeprefix("\ufeff") for line in lines[:1]] + lines[1:]

    return list_from_file
