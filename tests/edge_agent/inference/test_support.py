"""The distance from the training data and its limit."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edge_agent.inference.support import RATES, Support, limit_of

RULE = Support(streams=(1, 3), centres=(1.0, 0.0), scales=(2.0, 0.5), limit=1.0, rate=RATES[0])


def test_the_distance_is_the_mean_of_squared_robust_scores() -> None:
    """((3 - 1) / 2)^2 and ((1 - 0) / 0.5)^2 are 1 and 4."""
    assert RULE.distance((9.0, 3.0, 9.0, 1.0)) == 2.5


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300])
def test_an_overflow_is_far_away_and_no_error(value: float) -> None:
    """Odd outputs are unsupported inputs."""
    assert 1e9 < RULE.distance((0.0, value, 0.0, 0.0)) < math.inf


@pytest.mark.parametrize(
    ("count", "effective", "wanted"),
    [
        (99, 99, (98.0, 0.01)),  # the largest of 99
        (98, 98, (97.0, 0.02)),  # too few for 1 %
        (19, 19, (18.0, 0.05)),
        (18, 18, (0.0, 0.0)),
        (990, 99, (989.0, 0.01)),  # ten views of each of 99 things: as few as 99
        (199, 1000, (197.0, 0.01)),  # never more than there are
    ],
)
def test_the_limit_is_the_conformal_quantile_by_value(count: int, effective: int, wanted: tuple[float, float]) -> None:
    """The ceil((n + 1) (1 - rate))-th smallest distance, for the smallest rate that n allows."""
    assert limit_of([float(number) for number in range(count)], effective) == wanted


def test_at_most_the_stated_share_of_exchangeable_inputs_is_beyond_the_limit() -> None:
    """Over 400 calibrations of 150 rows, the mean share of new rows beyond the limit is about the rate, not more."""
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(400):
        limit, rate = limit_of(rng.chisquare(9, 150).tolist(), 150)
        assert rate == 0.01
        shares.append(float(np.mean(rng.chisquare(9, 1000) > limit)))
    assert 0.005 < np.mean(shares) <= 0.0108
