"""Numbers that the tools take: argparse's own ``float`` lets nan and inf pass."""

import argparse
import math


def finite(text: str) -> float:
    """Read a finite number, as the ``type`` of an option.

    Args:
        text (str): What the user gave.

    Returns:
        float: The number.

    Raises:
        argparse.ArgumentTypeError: If it is none.
    """
    value = _number(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"a finite number is needed, not {text!r}")
    return value


def seconds(text: str) -> float:
    """Read a length of time, as the ``type`` of an option.

    Args:
        text (str): What the user gave.

    Returns:
        float: Seconds, more than 0.

    Raises:
        argparse.ArgumentTypeError: If it is none.
    """
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(
            f"a number of seconds, more than 0, is needed, not {text!r}"
        )
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
