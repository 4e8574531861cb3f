"""Texts in pictures stand there as they are, whatever signs are in them.

Mends: matplotlib typesets what is between two dollar signs, or raises an error where it
cannot. Classes, titles and files are called what users call them.
"""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def literal_texts() -> Iterator[None]:
    """Let matplotlib typeset nothing; around, or on, all that makes and saves a figure.

    Yields:
        None: While it holds. Pictures of others are drawn as before.
    """
    import matplotlib

    with matplotlib.rc_context({"text.parse_math": False}):
        yield
