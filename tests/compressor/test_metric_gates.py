"""Gates on bootstrapped metrics: three verdicts, fail closed."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from compressor.gates import Evidence, MetricDrop, MetricEvidence, Verdict
from compressor.gates.kinds import KINDS

GOOD = MetricEvidence(0.002, -0.002, 0.006, 0.95, 1000, 300, 0.95, 0.948)


@pytest.mark.parametrize("metric", [name for name, kind in KINDS.items() if kind.make is MetricDrop])
@pytest.mark.parametrize(
    ("margin", "verdict"),
    [(0.01, Verdict.PASS), (0.004, Verdict.INCONCLUSIVE), (-0.003, Verdict.FAIL)],
)
def test_three_verdicts(metric: str, margin: float, verdict: Verdict) -> None:
    """Shown, not shown yet, refuted."""
    result = MetricDrop(metric, margin).judge(Evidence(metrics={metric: GOOD}))
    assert (result.name, result.verdict) == (metric, verdict)
    assert (result.needs > 0) == (verdict is Verdict.INCONCLUSIVE)


@pytest.mark.parametrize(
    "weak",
    [
        replace(GOOD, confidence=0.9),
        replace(GOOD, upper=math.nan),
        replace(GOOD, drop=math.inf),
        replace(GOOD, n=0),
        replace(GOOD, lower=0.007),
        MetricEvidence(),
    ],
)
def test_a_bound_that_is_weak_or_broken_fails(weak: MetricEvidence) -> None:
    """Less confidence than the rule asks for, NaN, no samples, bounds in the wrong order."""
    assert MetricDrop("auc_drop", 0.01).judge(Evidence(metrics={"auc_drop": weak})).verdict is Verdict.FAIL


@pytest.mark.parametrize("few", [replace(GOOD, n=20), replace(GOOD, rarest=3)])
def test_few_samples_show_nothing(few: MetricEvidence) -> None:
    """A bootstrap of few samples has no width where none differs."""
    result = MetricDrop("auc_drop", 0.01).judge(Evidence(metrics={"auc_drop": few}))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.needs > 0
