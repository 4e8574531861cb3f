"""Counting what a rank sends to those that share its clips."""

_sent = {"halos": 0, "sums": 0}


def count_sent(kind: str, x) -> None:
    """Count a tensor that is sent.

    Args:
        kind (str): ``'halos'`` or ``'sums'``.
        x (Tensor): What is sent.
    """
    _sent[kind] += x.numel() * x.element_size()


def sent_bytes() -> tuple[int, int]:
    """Return what this process has sent so far.

    Returns:
        tuple[int, int]: Bytes of halos, and bytes given into sums.
    """
    return _sent["halos"], _sent["sums"]
