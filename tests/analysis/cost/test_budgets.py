"""What fits a budget: predictions from three steps, and the search by trying."""

import math

import pytest

from polynl_mm.analysis.cost.budgets import (
    Growth,
    fit_growth,
    largest,
    parse_bytes,
    predicted,
)
from polynl_mm.user_errors import UserError


@pytest.mark.parametrize("growth", [Growth(366, 34.6, 0), Growth(10, 2, 0.5)])
def test_growth_is_found(growth):
    measured = (growth.predict(2, 32), growth.predict(3, 32), growth.predict(2, 16))
    found = fit_growth(32, *measured)
    for batch, frames in ((1, 8), (7, 32), (1, 512)):
        assert found.predict(batch, frames) == pytest.approx(
            growth.predict(batch, frames)
        )


def test_small_steps_of_an_allocator_are_no_square():
    assert fit_growth(32, 1000 + 2 * 330, 1000 + 3 * 330, 1000 + 2 * 160).quadratic == 0


@pytest.mark.parametrize("guess", [0, 1, 5, 13, 14, 15, 60, 5000])
@pytest.mark.parametrize("answer", [0, 1, 13, 700])
@pytest.mark.parametrize("memory", [lambda n: n, lambda n: n**2 + n, lambda n: 9 + n])
def test_largest_is_found_from_any_guess(guess, answer, memory):
    calls = []

    def measure(number):
        assert number >= 1 and number not in calls
        calls.append(number)
        # A GPU says only that it was too much.
        return math.inf if number > 1000 else memory(number)

    budget = (memory(answer) if answer else 0) + 0.5
    assert largest(measure, budget, guess) == answer
    assert len(calls) <= 24
    if guess == answer > 0:
        assert sorted(calls) == [answer, answer + 1]


def test_prediction_stops_at_the_budget():
    assert predicted(lambda n: 10 * n, 139) == 13
    assert predicted(lambda n: 10 * n, 9) == 0
    assert predicted(lambda n: 0.0, 9, most=77) == 77


@pytest.mark.parametrize(
    ("text", "size"),
    [("16GB", 16 * 10**9), ("1.5 gib", 3 * 2**29), ("500MB", 5 * 10**8)],
)
def test_amounts(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["16", "GB", "-1GB", "0GB", "1e3GB", "16 G", ""])
def test_no_amounts(text):
    with pytest.raises(UserError, match="no amount of memory"):
        parse_bytes(text)
