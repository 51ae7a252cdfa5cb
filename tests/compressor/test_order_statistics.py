"""Bounds of a median from the order of repeats."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from compressor.statistics.order_statistics import least_repeats, median_bounds


@pytest.mark.parametrize("n", range(5, 41))
def test_the_bound_is_the_lowest_order_statistic_that_covers_the_median(n: int) -> None:
    """Its exact coverage is at least 95 %, and that of the one below it is not."""
    low, high = median_bounds([float(i) for i in range(1, n + 1)]) or (0.0, 0.0)
    rank = int(high)
    assert stats.binom.cdf(rank - 1, n, 0.5) >= 0.95 > stats.binom.cdf(rank - 2, n, 0.5)
    assert low == n + 1 - rank


def test_too_few_repeats_have_no_bound() -> None:
    """Four cover the median in 93.75 % of the cases at most; for 99 % seven are needed."""
    assert (median_bounds([1.0] * 4), median_bounds([1.0] * 5)) == (None, (1.0, 1.0))
    assert (least_repeats(), least_repeats(0.99), least_repeats(0.5)) == (5, 7, 1)


@pytest.mark.parametrize("draw", ["lognormal", "standard_cauchy"])
def test_the_bound_holds_for_skewed_and_heavy_tailed_times(draw: str) -> None:
    """Of 4,000 lots of eight at most 5 % and two standard errors lie below the true median."""
    lots = getattr(np.random.default_rng(0), draw)(size=(4_000, 8))
    truth = 1.0 if draw == "lognormal" else 0.0
    below = np.mean([(median_bounds(lot.tolist()) or (0, 0))[1] < truth for lot in lots])
    assert 0.02 < below <= 0.05 + 2 * (0.05 * 0.95 / 4_000) ** 0.5
