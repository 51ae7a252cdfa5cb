"""Verdicts of probation, from facts alone."""

from dataclasses import replace

import pytest

from edge_agent.updater.probation import Health, Limits, judge

LIMITS = Limits(probation_s=60.0, max_error_ratio=0.05, latency_p95_ms=5.0, latency_slack_ratio=1.5)
GOOD = Health(beats=10, inferences=1000, p95_ms=(4.0,) * 10, alive=True)


@pytest.mark.parametrize(
    ("health", "elapsed_s", "over", "code"),
    [
        (GOOD, 59.0, False, ""),
        (GOOD, 60.0, True, ""),
        (Health(), 600.0, False, ""),
        (Health(beats=3, alive=True), 60.0, True, ""),
        (GOOD.crashed(), 1.0, True, "child_crashed"),
        (GOOD.hung(), 1.0, True, "child_hung"),
        (replace(GOOD, errors=60), 1.0, True, "error_rate"),
        (replace(GOOD, errors=50), 1.0, False, ""),
        (Health(inferences=1, errors=9, alive=True), 1.0, False, ""),
        (replace(GOOD, p95_ms=(8.0,) * 10), 1.0, True, "latency_over_budget"),
        (replace(GOOD, p95_ms=(7.0,) * 10), 1.0, False, ""),
        (replace(GOOD, p95_ms=(99.0,) * 4), 1.0, False, ""),
        (replace(GOOD, p95_ms=(4.0,) * 6 + (99.0,) * 4), 1.0, False, ""),
    ],
)
def test_judges(health: Health, elapsed_s: float, over: object, code: str) -> None:
    """Healthy to the end, or over at once with a code; too few facts decide nothing."""
    verdict = judge(health, LIMITS, elapsed_s)
    assert (verdict.over, verdict.code) == (over, code)


def test_latency_without_a_budget_is_not_judged() -> None:
    """A budget of 0 is none."""
    assert not judge(replace(GOOD, p95_ms=(999.0,) * 10), replace(LIMITS, latency_p95_ms=0.0), 1.0).over


def test_a_beat_without_inferences_says_nothing_of_latency() -> None:
    """Only beats that served count for p95."""
    assert Health().beat(n=0, errors=0, p95_ms=0.0).p95_ms == ()
