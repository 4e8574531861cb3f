"""Refusing lengths of clips that cannot be shared equally, naming those that can."""

from collections.abc import Callable

from polynl_mm.user_errors import UserError

MAX_SHARE = 64


class UnevenSharesError(UserError):
    """A rank's share of a clip does not divide at some layer.

    Args:
        layer (str): Which one.
        frames (int): How many frames of a rank, or of a clip, reach it.
        divisor (int): What would have to divide them.
    """

    def __init__(self, layer: str, frames: int, divisor: int):
        super().__init__(f"{frames} frames reach {layer}, which divides by {divisor}")


def explain_lengths(
    error: UnevenSharesError, frames: int, ranks: int, fits: Callable[[int], bool]
) -> str:
    """Say which lengths of clips can be shared over ranks.

    Args:
        error (UnevenSharesError): What a length was refused with.
        frames (int): That length.
        ranks (int): How many ranks share a clip.
        fits (Callable): Says whether the network takes a rank's share of so many.

    Returns:
        str: One sentence.
    """
    unit = next((n for n in range(1, MAX_SHARE + 1) if fits(n)), None)
    refused = (
        f"A clip of {frames} frames cannot be shared over {ranks} ranks by this "
        f"network, because the shares would become unequal ({error})"
    )
    if unit is None:
        return f"{refused}; train without --clip-parallel."
    unit *= ranks
    below = frames - frames % unit
    fitting = [n for n in (below, below + unit) if n and n != frames]
    return (
        f"{refused}; take a length that {unit} divides, such as "
        f"{' or '.join(map(str, fitting))}."
    )
