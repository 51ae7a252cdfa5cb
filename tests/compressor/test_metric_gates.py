"""Gates on bootstrapped metrics: three verdicts, fail closed."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from compressor.gates import Evidence, MetricDrop, MetricEvidence, Verdict
from compressor.gates.kinds import KINDS
from compressor.gates.metrics import WorstSliceIncrease

GOOD = MetricEvidence(
    drop=0.002, lower=-0.002, upper=0.006, confidence=0.95, n=1000, rarest=300, baseline=0.95, candidate=0.948
)


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
    """Less confidence than the rule requires, NaN, no samples, bounds in the wrong order."""
    assert MetricDrop("auc_drop", 0.01).judge(Evidence(metrics={"auc_drop": weak})).verdict is Verdict.FAIL


@pytest.mark.parametrize("few", [replace(GOOD, n=20), replace(GOOD, rarest=3)])
def test_few_samples_show_nothing(few: MetricEvidence) -> None:
    """A bootstrap of few samples has no width where none differs."""
    result = MetricDrop("auc_drop", 0.01).judge(Evidence(metrics={"auc_drop": few}))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.needs > 0


@pytest.mark.parametrize(
    ("n", "rarest", "needs"), [(20, 300, 80), (99, 20, 1), (100, 20, 0), (1000, 19, 53), (1000, 0, 19_000)]
)
def test_few_samples_ask_for_a_hundred_and_twenty_of_the_rarest(n: int, rarest: int, needs: int) -> None:
    """Both sides of both bounds; the rarest group grows as the whole does."""
    result = MetricDrop("auc_drop", 0.01).judge(Evidence(metrics={"auc_drop": replace(GOOD, n=n, rarest=rarest)}))
    assert (result.needs, result.verdict is Verdict.PASS) == (needs, not needs)


@pytest.mark.parametrize(("half", "verdict"), [(0.0066, Verdict.FAIL), (0.0067, Verdict.INCONCLUSIVE)])
def test_a_drop_at_the_margin_fails_once_the_samples_would_show_an_equal_model(half: float, verdict: Verdict) -> None:
    """Width over margin is then the normal quantile over that and the power's: 1.645 of 2.486."""
    found = replace(GOOD, drop=0.01, lower=0.01 - half, upper=0.01 + half)
    result = MetricDrop("auc_drop", 0.01).judge(Evidence(metrics={"auc_drop": found}))
    planned = math.ceil(1000 * (half / 0.01 * (1.6448536 + 0.8416212) / 1.6448536) ** 2)
    assert (result.verdict, result.needs) == (verdict, max(0, planned - 1000))


def test_the_worst_slice_is_told_under_the_gates_name() -> None:
    """The slice is named in the text."""
    worse = replace(GOOD, drop=0.02, lower=0.015, upper=0.03, confidence=0.975)
    evidence = Evidence(metrics={"slice:a": replace(GOOD, confidence=0.975), "slice:b": worse})
    result = WorstSliceIncrease(0.01).judge(evidence)
    assert (result.name, result.verdict) == ("worst_slice_error_increase", Verdict.FAIL)
    assert result.text.startswith("slice 'b' (2 tested together): worse by 0.02 ")
