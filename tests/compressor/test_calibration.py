"""The increase of the calibration error: numbers worked out by hand, bounds that keep their risk, bad input."""

from __future__ import annotations

import numpy as np
import pytest

from compressor.errors import MeasureError
from compressor.gates import Evidence, MetricDrop, Verdict
from compressor.statistics.bootstrap import Draws
from compressor.statistics.confidence_calibration import calibration_error_increase

DRAWS = Draws()


def scores(confidence: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return log-probabilities of two classes, (N, 2), label 0, whose prediction is ``right`` so surely."""
    return np.log(np.where(right[:, None], np.c_[confidence, 1 - confidence], np.c_[1 - confidence, confidence]))


def drawn(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return exact confidences, and which answers are right."""
    generator = np.random.default_rng(seed)
    chance = np.clip(generator.beta(6, 1.2, n), 0.6, 0.999)
    return chance, generator.random(n) < chance


def test_the_error_of_one_bin_is_the_gap_less_its_noise() -> None:
    """Ten at 0.9 with seven right: gap 0.2, squared less the variance 0.7 * 0.3 * 10 / 9 over 10."""
    right = np.arange(10) < 7
    before, after = scores(np.full(10, 0.7), right), scores(np.full(10, 0.9), right)
    found = calibration_error_increase(np.zeros(10, int), before, after, DRAWS)
    assert found.candidate == pytest.approx((0.2**2 - 0.7 * 0.3 / 9) ** 0.5)
    assert (found.baseline, found.rarest, found.n) == (0.0, 3, 10)
    assert found.lower <= found.drop <= found.upper


def test_a_candidate_at_the_margin_seldom_passes() -> None:
    """Less sure by the margin, from exact confidence: at most 5 % of 300 trials, and three standard errors."""
    passed = 0
    for seed in range(300):
        chance, right = drawn(600, seed)
        found = calibration_error_increase(
            np.zeros(600, int), scores(chance, right), scores(chance - 0.04, right), DRAWS
        )
        passed += found.upper <= 0.04
    assert passed / 300 <= 0.05 + 3 * (0.05 * 0.95 / 300) ** 0.5


def test_an_equal_model_passes_with_enough_samples_and_asks_for_more_with_few() -> None:
    """Three verdicts, as of every other metric."""
    verdicts = {}
    for n in (60, 800, 4000):
        chance, right = drawn(n)
        said = scores(chance, right)
        found = calibration_error_increase(np.zeros(n, int), said, said, DRAWS)
        verdicts[n] = MetricDrop("calibration_error_increase", 0.03).judge(
            Evidence(metrics={"calibration_error_increase": found})
        )
    assert [result.verdict for result in verdicts.values()] == [
        Verdict.INCONCLUSIVE,
        Verdict.INCONCLUSIVE,
        Verdict.PASS,
    ]
    assert verdicts[800].needs > 0


def test_a_candidate_far_beyond_the_margin_fails() -> None:
    """Nine points less sure than it should be."""
    chance, right = drawn(2000)
    before, after = scores(chance, right), scores(chance - 0.09, right)
    found = calibration_error_increase(np.zeros(2000, int), before, after, DRAWS)
    assert 0.03 < found.lower < found.candidate == pytest.approx(0.09, abs=0.03)
    metrics = {"calibration_error_increase": found}
    assert MetricDrop("calibration_error_increase", 0.03).judge(Evidence(metrics=metrics)).verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("targets", "before", "after", "said"),
    [
        (np.zeros(3, int), np.zeros((3, 2)), np.zeros((3, 3)), "log-probabilities"),
        (np.zeros(4, int), np.zeros((3, 2)), np.zeros((3, 2)), "log-probabilities"),
        (np.zeros(1, int), np.zeros((1, 2)), np.zeros((1, 2)), "N of 2 or more"),
        (np.zeros(3, int), np.zeros((3, 2)), np.full((3, 2), np.nan), "finite"),
    ],
)
def test_refuses_what_can_not_be_compared(
    targets: np.ndarray, before: np.ndarray, after: np.ndarray, said: str
) -> None:
    """Nothing is broadcast, and NaN is not a confidence."""
    with pytest.raises(MeasureError, match=said):
        calibration_error_increase(targets, before, after, DRAWS)


def test_the_increase_is_what_the_candidate_has_more() -> None:
    """Both models have an error; the bounds are those of the difference, at the root of the baseline's error."""
    right = np.arange(1000) % 10 < 7
    before, after = scores(np.full(1000, 0.8), right), scores(np.full(1000, 0.9), right)
    found = calibration_error_increase(np.zeros(1000, int), before, after, DRAWS)
    assert found.drop == pytest.approx(found.candidate - found.baseline)
    assert (found.baseline, found.candidate) == (pytest.approx(0.1, abs=0.002), pytest.approx(0.2, abs=0.002))
    assert 0.06 < found.lower < 0.09
    assert 0.12 < found.upper < 0.16


def test_two_samples_are_the_least() -> None:
    """A variance needs two; one is refused."""
    chance, right = np.array([0.8, 0.8]), np.array([True, False])
    said = scores(chance, right)
    assert calibration_error_increase(np.zeros(2, int), said, said, DRAWS).n == 2
    with pytest.raises(MeasureError, match="N of 2 or more"):
        calibration_error_increase(np.zeros(1, int), said[:1], said[:1], DRAWS)
