"""Bootstrapped metrics: their values, their bounds by simulation, and refused inputs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import special, stats
from sklearn.metrics import average_precision_score, roc_auc_score

from compressor.errors import MeasureError
from compressor.gates import Evidence, Verdict
from compressor.gates.metrics import ErrorCeiling
from compressor.statistics import bootstrap
from compressor.statistics.bootstrap import (
    Draws,
    _bca,
    _left_out,
    _resampled,
    auc_drop,
    error_increase,
    ranking_precision_drop,
)

FEW = Draws(replicates=200)


def _scores() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 200)
    one = np.round(generator.normal(size=(200, 3)) + 2 * np.eye(3)[labels], 1)
    return labels, one, np.round(one + generator.normal(size=one.shape), 1)


def test_values_equal_scikit_learns() -> None:
    """One against the rest, macro, with ties."""
    labels, one, other = _scores()
    found, precision = auc_drop(labels, one, other, FEW), ranking_precision_drop(labels, one, other, FEW)
    assert found.baseline == pytest.approx(np.mean([roc_auc_score(labels == i, one[:, i]) for i in range(3)]))
    wanted = np.mean([average_precision_score(labels == i, other[:, i]) for i in range(3)])
    assert precision.candidate == pytest.approx(wanted)
    assert found.drop == pytest.approx(found.baseline - found.candidate)


def test_two_classes_many_labels_and_one_column_agree() -> None:
    """Scores (N,) of class 1 equal a column of a multi-label table."""
    labels, one, other = _scores()
    binary = auc_drop((labels == 1).astype(int), one[:, 1], other[:, 1], FEW)
    table = auc_drop((labels == 1)[:, None], one[:, 1:2], other[:, 1:2], FEW)
    assert binary == table


def test_errors_are_the_textbooks() -> None:
    """A constant offset of one tenth."""
    truth = np.random.default_rng(0).normal(size=120)
    assert error_increase(truth, truth, truth + 0.1, FEW).drop == pytest.approx(0.1)
    assert error_increase(truth, truth + 0.1, truth - 0.3, FEW, squared=True).drop == pytest.approx(0.2)


def test_the_same_seed_gives_the_same_bounds() -> None:
    """Evidence is repeatable, and the estimate is between its bounds."""
    labels, one, other = _scores()
    first = auc_drop(labels, one, other, FEW)
    assert first == auc_drop(labels, one, other, FEW)
    assert first.lower < first.drop < first.upper
    assert (first.n, first.rarest) == (200, int(np.bincount(labels).min()))


def _auc_passes(seed: int) -> bool:
    generator = np.random.default_rng(seed)
    labels = np.repeat([0, 1], 60)
    before = generator.normal(size=120) + 1.5 * labels
    true = special.ndtr(1.5 / 2**0.5) - special.ndtr(1.5 / (2 * 1.36) ** 0.5)
    return bool(auc_drop(labels, before, before + 0.6 * generator.normal(size=120), FEW).upper <= true)


def _error_passes(seed: int) -> bool:
    generator = np.random.default_rng(seed)
    before = 0.5 * generator.normal(size=100)
    true = (2 / np.pi) ** 0.5 * (0.34**0.5 - 0.5)
    after = before + 0.3 * generator.normal(size=100)
    return bool(error_increase(np.zeros(100), before, after, FEW).upper <= true)


@pytest.mark.parametrize("passes", [_auc_passes, _error_passes])
def test_about_five_percent_pass_when_the_true_increase_is_the_margin(passes: object) -> None:
    """Simulated; within three standard errors."""
    assert callable(passes)
    share = np.mean([passes(seed) for seed in range(200)])
    assert share <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)


def _rare_fall_passes(seed: int, positives: int = 20) -> bool:
    generator = np.random.default_rng(seed)
    labels = np.repeat([1, 0], [positives, 60])
    before = generator.normal(size=len(labels)) + 20 * labels
    after = np.where((generator.random(len(labels)) < 0.03) & (labels == 1), -99.0, before)
    return bool(auc_drop(labels, before, after, FEW).upper <= 0.03)


def _rare_error_passes(seed: int) -> bool:
    generator = np.random.default_rng(seed)
    after = np.where(generator.random(150) < 0.02, generator.exponential(size=150), 0.0)
    found = error_increase(np.zeros(150), np.zeros(150), after, FEW)
    return ErrorCeiling("mae", 0.02).judge(Evidence(metrics={"mae": found})).verdict is Verdict.PASS


def _lognormal_error_passes(seed: int) -> bool:
    after = np.random.default_rng(seed).lognormal(0, 1.5, 150)
    return bool(error_increase(np.zeros(150), np.zeros(150), after, FEW).upper <= np.exp(1.125))


@pytest.mark.parametrize("passes", [_rare_fall_passes, _rare_error_passes, _lognormal_error_passes])
def test_a_loss_that_few_rows_carry_passes_at_the_margin_no_more_often(passes: object) -> None:
    """3 % of the positives fall to the bottom, 2 % of the errors are large, errors are lognormal; two standard errors.

    The bootstrap alone lets 54, 15 and 10 % pass.
    """
    assert callable(passes)
    share = np.mean([passes(seed) for seed in range(300)])
    assert share <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 300)


@pytest.mark.parametrize("n", [40, 100])
def test_of_a_ranking_that_did_not_change_the_bound_is_three_over_the_positives(n: int) -> None:
    """As for a proportion without any event; one that falls in each of two classes, each counting half, adds less."""
    labels = np.repeat([1, 0], [n, 30 * n])
    scores_ = np.random.default_rng(0).normal(size=len(labels)) + 20.0 * labels
    assert auc_drop(labels, scores_, scores_, Draws()).upper == pytest.approx(1 - 0.05 ** (1 / n), rel=0.1)


@pytest.mark.parametrize(
    ("labels", "one", "other"),
    [
        (np.zeros(9, int), np.ones(9), np.ones(9)),
        (np.array([0, 1]), np.ones(2), np.ones(3)),
        (np.array([0, 1]), np.array([0.0, np.nan]), np.ones(2)),
        (np.array([0, 2]), np.ones((2, 2)), np.ones((2, 2))),
    ],
)
def test_refuses_what_has_no_answer(labels: np.ndarray, one: np.ndarray, other: np.ndarray) -> None:
    """One class only, unequal shapes, NaN, a label out of range."""
    with pytest.raises(MeasureError):
        auc_drop(labels, one, other, FEW)


def test_the_bounds_equal_scipys() -> None:
    """Bias and acceleration of a skewed sample, from the same replicates."""
    sample = np.random.default_rng(0).exponential(size=40)
    theirs = stats.bootstrap((sample,), np.mean, n_resamples=2000, confidence_level=0.9, method="BCa", rng=1)
    left_out = (sample.sum() - sample) / 39
    found = _bca(float(sample.mean()), theirs.bootstrap_distribution, left_out, float(stats.norm.ppf(0.95)))
    assert found == pytest.approx(tuple(theirs.confidence_interval), abs=2e-3)


def test_a_bias_beyond_all_replicates_is_that_of_the_last_one() -> None:
    """The share below the value is kept from 0 and 1 by one replicate."""
    replicates, symmetric = np.arange(100.0), np.array([-1.0, 1.0])
    last = special.ndtri(0.99)
    assert _bca(1000.0, replicates, symmetric, 1.0) == (
        pytest.approx(np.quantile(replicates, special.ndtr(2 * last - 1))), 1000.0,
    )  # fmt: skip
    assert _bca(-1.0, replicates, symmetric, 1.0)[1] == pytest.approx(
        np.quantile(replicates, special.ndtr(1 - 2 * last))
    )


@pytest.mark.parametrize("sign", [-1, 1])
def test_ties_count_half(sign: int) -> None:
    """Replicates that are evenly spread around the value, many of them equal to it, have no bias."""
    replicates = np.repeat([-1.0, 0.0, 1.0], [30, 40, 30])
    lower, upper = _bca(0.0, sign * replicates, np.array([-1.0, 1.0]), 0.9)
    assert (lower, upper) == (-1.0, 1.0)


def test_bounds_of_few_samples_are_students_and_cautious() -> None:
    """Twelve errors without skew: t with 11 degrees, 1 / 1.25 of the risk, and the spread over n - 1."""
    errors = np.linspace(9.0, 11.0, 12)
    found, mirrored = (
        error_increase(np.zeros(12), *models, Draws(replicates=20_000))
        for models in ((np.zeros(12), errors), (errors, np.zeros(12)))
    )
    reach = stats.t.ppf(1 - 0.05 / 1.25, 11) * errors.std(ddof=1) / 12**0.5
    assert found.drop - found.lower == pytest.approx(reach, rel=0.03)
    assert mirrored.drop - mirrored.lower == pytest.approx(reach, rel=0.03)


def test_the_rarest_group_may_be_the_negatives() -> None:
    """150 positives and 50 negatives are 50."""
    labels = np.repeat([1, 0], [150, 50])
    scores_ = np.random.default_rng(0).normal(size=200) + labels
    assert auc_drop(labels, scores_, scores_, FEW).rarest == 50
    assert auc_drop(1 - labels, -scores_, -scores_, FEW).rarest == 50


@pytest.mark.parametrize("n", [3, 256, 600])
def test_each_sample_is_left_out_once(n: int) -> None:
    """In 256 blocks at most, of nearly equal size."""
    weights = np.concatenate(list(_left_out(n, np.random.default_rng(0))))
    assert weights.shape == (min(n, 256), n)
    assert weights.dtype == np.float64
    assert ((1 - weights).sum(axis=0) == 1).all()
    assert np.ptp((1 - weights).sum(axis=1)) <= 1


def test_bounds_of_six_samples_use_students_t_with_five_degrees() -> None:
    """The quantile is taken from all 46,656 means of six draws; seven degrees would give a bound 4 % lower."""
    errors = np.array([5.0, 8.0, 9.1, 10.9, 12.0, 15.0])
    every = np.array(list(itertools.product(errors, repeat=6))).mean(axis=1)
    reach = stats.t.ppf(1 - 0.05 / 1.25, 5) * (6 / 5) ** 0.5
    mirrored = error_increase(np.zeros(6), errors, np.zeros(6), Draws(replicates=40_000))
    assert -mirrored.lower - 10 == pytest.approx(np.quantile(every, special.ndtr(reach)) - 10, rel=0.02)


def test_more_samples_than_are_held_at_once_are_weighted_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row is the least that is drawn, even if it is larger than the memory set aside."""
    monkeypatch.setattr(bootstrap, "_AT_ONCE", 10)
    generator, strata = np.random.default_rng(0), np.repeat([0, 1], [5, 20])
    assert [row.shape for row in _left_out(25, generator)] == [(1, 25)] * 25
    drawn = list(_resampled(strata, 3, generator))
    assert [row.shape for row in drawn] == [(1, 25)] * 3
    assert all((row[0, :5].sum(), row[0, 5:].sum()) == (5, 20) for row in drawn)


@pytest.mark.parametrize("shapes", [(9, 9, 1), (9, 1, 9), (1, 9, 9), ((), (), ())])
def test_errors_need_predictions_of_the_shape_of_the_values(shapes: tuple[int | tuple[int, ...], ...]) -> None:
    """One prediction for all of them would be compared with each, and no error said so."""
    truth, before, after = (np.ones(shape) for shape in shapes)
    with pytest.raises(MeasureError):
        error_increase(truth, before, after, FEW)
