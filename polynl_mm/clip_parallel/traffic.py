"""Counting what a rank sends to those that share its clips."""

_sent = {"halos": 0, "sums": 0, "clips": 0}


def count_sent(kind: str, x) -> None:
    """Count a tensor that is sent.

    Args:
        kind (str): ``'halos'``, ``'sums'``, or ``'clips'``: whole features.
        x (Tensor): What is sent.
    """
    _sent[kind] += x.numel() * x.element_size()


def sent_bytes() -> tuple[int, int, int]:
    """Return what this process has sent so far.

    Returns:
        tuple[int, int, int]: Bytes of halos, bytes given into sums, and bytes of
        features that blocks need whole.
    """
    return _sent["halos"], _sent["sums"], _sent["clips"]
