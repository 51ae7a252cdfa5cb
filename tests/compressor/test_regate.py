"""Golden vectors compared again, and what never agrees."""

import math

import pytest

from compressor.regate import agrees
from wire.manifest import Budgets

BUDGETS = Budgets(golden_max_abs=0.5, golden_max_flips=1)


@pytest.mark.parametrize(
    ("difference", "flips", "expected"), [(0.5, 1, True), (0.6, 0, False), (0.0, 2, False), (math.nan, 0, False)]
)
def test_agrees_only_within_both_budgets(difference: float, flips: int, *, expected: bool) -> None:
    """At the limit is within; a difference that is not a number is not."""
    assert agrees(difference, flips, BUDGETS) is expected
