"""Errors of a regression: figures, bounds, slices, and the gate on the worst of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from compressor.gates import Evidence, MetricEvidence, Verdict
from compressor.gates.evidence import GateRecipe
from compressor.gates.kinds import gate
from compressor.gates.metrics import WORST_SLICE, ErrorCeiling, WorstSliceIncrease
from compressor.measurement.predictions import Compared, Predictions
from compressor.tasks.regression.evidence import error_of, evidence, figures, golden_rows, metrics

RANDOM = np.random.default_rng(0)
GOOD = MetricEvidence(drop=0.1, lower=0.0, upper=0.2, confidence=0.975, n=300, rarest=300, baseline=1.0, candidate=1.1)


def said(values: np.ndarray) -> Predictions:
    """Return predictions without an embedding."""
    return Predictions(values.astype(np.float32), np.zeros((len(values), 0), np.float32))


@pytest.fixture
def compared() -> Compared:
    """Return 400 values in two slices; the candidate is off by one more in the second."""
    truth = RANDOM.normal(100, 10, (400, 1)).astype(np.float32)
    slices = np.repeat(["east", "west"], 200)
    before = said(truth + RANDOM.normal(0, 1, (400, 1)))
    after = said(before.logits + np.where(slices == "west", 4, 0)[:, None])
    return Compared(labels=truth, slices=slices, baseline=before, float_model=before, candidate=after)


def test_the_error_has_bounds_of_its_mean_and_a_root_mean_square() -> None:
    """Against numbers worked out by hand: errors 1, 1, 4."""
    found = error_of(np.array([[1.0], [-1.0], [4.0]]), np.zeros((3, 1)))
    assert (found.mean, found.largest, found.n) == (2.0, 4.0, 3)
    assert found.rms == pytest.approx(6**0.5)
    assert found.high - found.mean == pytest.approx(4.302653 * 3**0.5 / 3**0.5)
    assert found.low == 0.0


def test_the_bounds_cover_the_mean_as_often_as_they_say() -> None:
    """At 95 %, 1,000 sets of 100 errors."""
    errors = np.random.default_rng(1).exponential(1.0, (1000, 100, 1))
    inside = [error_of(part, np.zeros((100, 1))) for part in errors]
    assert 0.91 < np.mean([one.low <= 1.0 <= one.high for one in inside]) < 0.97


def test_figures_are_of_candidate_float_and_baseline(compared: Compared) -> None:
    """By the names that gates and certificate use."""
    found = figures(compared)
    assert found["n_gate"] == 400
    assert found["mae"] > found["float_mae"] == found["baseline_mae"]
    assert found["mae_low"] < found["mae"] < found["mae_high"] < found["error_max"]
    assert found["rmse"] > found["float_rmse"]


def test_only_what_rules_name_is_bootstrapped(compared: Compared) -> None:
    """The increase of the error is always; slices at the level of all together."""
    assert set(metrics(compared, ())) == {"error_increase"}
    found = metrics(
        compared, (GateRecipe(name="rmse_increase", max=1.0), GateRecipe(name=WORST_SLICE, max=1.0, confidence=0.9))
    )
    assert set(found) == {"error_increase", "rmse_increase", "slice:east", "slice:west"}
    assert found["slice:east"].confidence == pytest.approx(0.95)
    assert found["slice:west"].drop > 2 > found["slice:east"].drop == 0


def test_a_regression_has_no_evidence_of_classes(compared: Compared) -> None:
    """The evidence of another gate is missing, and a missing measurement fails."""
    found = evidence(compared, ("value",), {}, None, (GateRecipe(name="error_increase", max=9.0),))
    assert (found.accuracy, found.flips, dict(found.slices)) == (None, None, {})
    for name in ("accuracy_drop", "flip_ratio", "auc_drop"):
        made = gate(GateRecipe(name=name, max=0.5))
        assert made is not None
        assert made.judge(found).verdict is Verdict.FAIL


def test_the_worst_slice_decides(compared: Compared) -> None:
    """The mean may pass while one slice fails; it is named."""
    found = metrics(compared, (GateRecipe(name=WORST_SLICE, max=3.0),))
    result = WorstSliceIncrease(3.0).judge(Evidence(metrics=found))
    assert (result.name, result.verdict) == (WORST_SLICE, Verdict.FAIL)
    assert "slice 'west' (2 tested together)" in result.text
    assert WorstSliceIncrease(6.0).judge(Evidence(metrics=found)).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("slices", "verdict"),
    [
        ({}, Verdict.FAIL),
        ({"slice:a": GOOD, "slice:b": replace(GOOD, confidence=0.95)}, Verdict.FAIL),
        ({"slice:a": GOOD, "slice:b": replace(GOOD, n=60, rarest=60)}, Verdict.INCONCLUSIVE),
        ({"slice:a": GOOD, "slice:b": replace(GOOD, upper=0.4)}, Verdict.INCONCLUSIVE),
        ({"slice:a": GOOD, "slice:b": GOOD}, Verdict.PASS),
    ],
)
def test_slices_fail_closed(slices: dict[str, MetricEvidence], verdict: Verdict) -> None:
    """None, a bound at too low a level, too few rows, a bound beyond the margin."""
    assert WorstSliceIncrease(0.3).judge(Evidence(metrics=slices)).verdict is verdict


def test_golden_rows_reach_from_the_smallest_to_the_largest_value() -> None:
    """Evenly by rank, each once, in ascending order of rows."""
    values = RANDOM.permutation(100).astype(np.float32)[:, None]
    rows = golden_rows(values, said(values), 16)
    assert len(rows) == 16
    assert list(rows) == sorted(set(rows.tolist()))
    assert {0.0, 99.0} <= set(values[rows, 0].tolist())


def test_the_error_itself_is_judged_by_its_bound(compared: Compared) -> None:
    """A measured error below the limit proves nothing yet; the text has bound and samples."""
    found = metrics(compared, (GateRecipe(name="mae", max=1.0), GateRecipe(name="rmse", max=1.0, confidence=0.9)))
    mean, most = found["mae"].drop, found["mae"].upper
    assert mean == pytest.approx(figures(compared)["mae"])
    assert found["rmse"].drop == pytest.approx(figures(compared)["rmse"])
    limits = {most + 0.01: Verdict.PASS, (mean + most) / 2: Verdict.INCONCLUSIVE, mean / 2: Verdict.FAIL}
    for limit, verdict in limits.items():
        result = ErrorCeiling("mae", limit).judge(Evidence(metrics=found))
        assert (result.name, result.verdict, result.value) == ("mae", verdict, mean)
        assert f"at most {most:.5g} with 95% confidence" in result.text
    assert ErrorCeiling("rmse", 99.0).judge(Evidence(metrics=found)).verdict is Verdict.FAIL
    assert ErrorCeiling("mae", 99.0).judge(Evidence()).verdict is Verdict.FAIL
