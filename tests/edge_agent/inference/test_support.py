"""The distance from the training data and its limit."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edge_agent.inference.support import RATE, Support, limit_of

RULE = Support(kind="embedding", streams=(1, 3), centres=(1.0, 0.0), scales=(2.0, 0.5), limit=1.0, rate=RATE)


def test_the_distance_is_the_mean_of_squared_robust_scores() -> None:
    """((3 - 1) / 2)^2 and ((1 - 0) / 0.5)^2 are 1 and 4."""
    assert RULE.distance((3.0, 1.0)) == 2.5


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300])
def test_an_overflow_is_far_away_and_no_error(value: float) -> None:
    """Odd outputs are unsupported inputs."""
    assert 1e9 < RULE.distance((value, 0.0)) < math.inf


def test_the_limit_is_the_conformal_quantile_by_value() -> None:
    """Of 99 distances the largest serves a rate of 1 %; of 98 none does, and no limit is stated."""
    distances = [float(number) for number in range(99)]
    assert (limit_of(distances, 0.01), limit_of(distances[:98], 0.01)) == (98.0, 0.0)
    assert limit_of(distances, 0.1) == 89.0


def test_at_most_the_stated_share_of_exchangeable_inputs_is_beyond_the_limit() -> None:
    """Over 400 calibrations of 200 rows, the mean share of new rows beyond the limit is at most the rate."""
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(400):
        limit = limit_of(rng.chisquare(9, 200).tolist(), 0.05)
        shares.append(float(np.mean(rng.chisquare(9, 500) > limit)))
    assert 0.04 < np.mean(shares) <= 0.053
