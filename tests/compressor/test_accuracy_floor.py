"""The floor of accuracy is judged by its bound: a few right answers show little."""

from __future__ import annotations

import pytest
from scipy import stats

from compressor.gates import AccuracyFloor, samples_above
from compressor.gates.evidence import Evidence, Verdict
from compressor.statistics.paired import Paired


def _seen(right: int, n: int) -> Evidence:
    return Evidence(accuracy=Paired(0, 0, n), figures={"accuracy": right / n})


@pytest.mark.parametrize(
    ("right", "n", "verdict"),
    [
        (10, 10, Verdict.INCONCLUSIVE),
        (29, 29, Verdict.PASS),
        (28, 28, Verdict.INCONCLUSIVE),
        (930, 1000, Verdict.PASS),
        (910, 1000, Verdict.INCONCLUSIVE),
        (899, 1000, Verdict.FAIL),
    ],
)
def test_passes_by_the_lower_bound_and_not_by_the_estimate(right: int, n: int, verdict: Verdict) -> None:
    """Ten of ten don't show 90 %: 0.9 ** 28 is above 5 %, 0.9 ** 29 below."""
    assert AccuracyFloor(0.9).judge(_seen(right, n)).verdict is verdict


def test_says_how_many_samples_are_needed() -> None:
    """With the number of samples that it states, the gate passes about four times of five."""
    result = AccuracyFloor(0.9).judge(_seen(93, 100))
    n = 100 + result.needs
    assert n == samples_above(0.93, AccuracyFloor(0.9))
    least = next(k for k in range(n + 1) if AccuracyFloor(0.9).judge(_seen(k, n)).verdict is Verdict.PASS)
    assert 0.79 < stats.binom.sf(least - 1, n, 0.93) < 0.83


@pytest.mark.parametrize("n", [60, 400, 1500])
def test_a_model_at_the_floor_passes_at_most_one_time_in_twenty(n: int) -> None:
    """The risk is enumerated, not simulated."""
    least = next(k for k in range(n + 1) if AccuracyFloor(0.9).judge(_seen(k, n)).verdict is Verdict.PASS)
    assert stats.binom.sf(least - 1, n, 0.9) <= 0.05


@pytest.mark.parametrize("evidence", [Evidence(), Evidence(figures={"accuracy": 1.0}), _seen(1, 0 + 1)])
def test_fails_closed(evidence: Evidence) -> None:
    """No measurement, no count of samples, or one sample never pass."""
    assert AccuracyFloor(0.9).judge(evidence).verdict is not Verdict.PASS
