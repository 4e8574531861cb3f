"""What fits into a budget of memory: predicted from a few steps, then tried."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from polynl_mm.user_errors import UserError

UNITS = {
    unit: base**power
    for suffix, base in (("B", 1000), ("iB", 1024))
    for power, letter in enumerate("KMGT", start=1)
    for unit in (f"{letter}{suffix}",)
}
# What is nearer to linear than this is: allocators round sizes up.
NEARLY = 0.05
# After so many tries by straight lines, halves are sure to end.
MOST_LINES = 8


@dataclass(frozen=True)
class Growth:
    """How the memory of a training step grows.

    Attributes:
        fixed (float): Bytes that neither clips nor frames add: weights and gradients.
        linear (float): Bytes that each frame of each clip adds.
        quadratic (float): Bytes for each clip and frame squared: of blocks that keep
            the affinities of all pairs of positions.
    """

    fixed: float
    linear: float
    quadratic: float

    def predict(self, batch: int, frames: int) -> float:
        """Return the bytes of a step.

        Args:
            batch (int): B.
            frames (int): T.
        """
        return self.fixed + batch * (self.linear + self.quadratic * frames) * frames


def fit_growth(frames: int, two: float, three: float, half: float) -> Growth:
    """Fit how memory grows to three measured steps.

    Args:
        frames (int): T of the whole clips, even.
        two (float): Bytes of a step on two clips.
        three (float): Of three clips. The first clip is not like the others: with it
            alone another moment of the step may be the worst.
        half (float): Of two clips of half as many frames.

    Returns:
        Growth: It meets the first two, and the third up to rounding.
    """
    whole = three - two
    fixed = max(two - 2 * whole, 0.0)
    bend = whole - max(half - fixed, 0.0)  # quadratic * T^2 / 2
    quadratic = 2 * bend / frames**2 if bend > NEARLY * whole else 0.0
    return Growth(fixed, whole / frames - quadratic * frames, quadratic)


def largest(measure: Callable[[int], float], budget: float, guess: int) -> int:
    """Return the largest number that keeps to a budget, by measuring near it.

    Args:
        measure (Callable): The bytes of a number from 1, growing with it; infinite
            where they were not to be had.
        budget (float): Bytes.
        guess (int): Where to begin; a good guess takes two calls.

    Returns:
        int: From 0: it fits (0 without a call), and the next one does not.
    """
    low, high = 0, None
    seen: dict[int, float] = {}
    number = max(guess, 1)
    while high is None or high - low > 1:
        seen[number] = measure(number)
        if seen[number] <= budget:
            low = number
        else:
            high = number
        number = _next(seen, budget, low, high)
    return low


def _next(seen: dict[int, float], budget: float, low: int, high: int | None) -> int:
    """Return where a line through the two measured nearest to the budget meets it."""
    known = {n: held for n, held in seen.items() if held != float("inf")}
    nearest = sorted(known, key=lambda n: abs(known[n] - budget))[:2]
    if len(nearest) == 2 and len(seen) < MOST_LINES:
        one, other = nearest
        slope = (known[one] - known[other]) / (one - other)
        met = one + (budget - known[one]) / slope if slope > 0 else one
    elif known and len(seen) < MOST_LINES:
        (one,) = known  # so much for each, all in all
        met = one * budget / known[one] if known[one] > budget else one + 1
    else:
        met = (low + high) / 2 if high is not None else 2 * low + 1
    if high is None:
        return max(low + 1, min(int(met), 2 * low + 1))
    return min(max(int(met), low + 1), high - 1)


def predicted(memory: Callable[[int], float], budget: float, most: int = 2**20) -> int:
    """Return the largest number whose predicted memory keeps to a budget.

    Args:
        memory (Callable): The bytes of a number, growing with it.
        budget (float): Bytes.
        most (int): No more than this is looked at.

    Returns:
        int: From 0 to ``most``.
    """
    low, high = 0, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        if memory(middle) <= budget:
            low = middle
        else:
            high = middle
    return low


def parse_bytes(text: str) -> int:
    """Read an amount of memory.

    Args:
        text (str): Such as ``16GB`` (10^9 bytes each) or ``512MiB`` (2^20 each).

    Returns:
        int: Bytes, at least 1.

    Raises:
        UserError: If it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]i?B)", text.strip(), re.IGNORECASE)
    units = {unit.lower(): size for unit, size in UNITS.items()}
    amount = round(float(found[1]) * units[found[2].lower()]) if found else 0
    if amount < 1:
        raise UserError(
            f"--memory-budget {text!r} is no amount of memory; give one such as 16GB, "
            "24GiB or 500MB."
        )
    return amount
