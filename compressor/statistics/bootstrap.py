"""Paired bootstrap: how much worse a metric became, with one-sided bounds. Pure; the seed is an argument.

Computes AUC, average precision, MAE and RMSE of two models on the same samples, and the BCa bounds of their
difference. Does not decide how large a difference is allowed (``gates.metrics`` does).
Calibration error is in ``confidence_calibration``: the binned estimate is biased upwards, most where the true error is
smallest, and in simulation its bootstrap bound let half of the candidates at the margin pass.

A metric is a function of sample weights (how often each sample was drawn), so one sort serves all replicates. For AUC
and average precision the samples of each class are resampled separately, so that no replicate lacks a class.

A resample never has a row worse than those that were seen. Where a few rows carry the loss (1 positive in 50 that falls
to the bottom, 1 error in 50 that is large), too small a set lacks them, and the bootstrap's bound is too low: in
simulation up to 12 % of the candidates at the margin passed. So the upper bound is at least that of Gaffke, with one
more row at the end of the range: a positive of each class that falls from the top to the bottom (of two classes also a
negative that rises), or an error as large as described at
``error_increase``. The rows, with that one, have random weights, uniform on the simplex. For rows of 0 and 1 it is
Clopper's and Pearson's bound. A ranking's range is known, so that its bound holds whatever the scores; the range of an
error is not, and no bound holds for every distribution.

Source: B. Efron, Better bootstrap confidence intervals, JASA 82 (1987) 171-185, equations 2.3 and 6.6 (BCa);
T. Hesterberg, What teachers should know about the bootstrap, The American Statistician 69 (2015) 371-386 (Student's t
quantile and the factor n / (n - 1), which correct the percentiles for small samples; n is the smallest group);
M. Phan, P. Thomas, E. Learned-Miller, Towards practical mean bounds for small samples, ICML 2021, section 2 (Gaffke).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from compressor.errors import MeasureError
from compressor.statistics.bounds import MetricEvidence

Floats = NDArray[np.float64]
Metric = Callable[[Floats], Floats]
"""Maps weights, float64 (R, N), to values, float64 (R,)."""

_AT_ONCE = 2_000_000  # weights in memory at the same time: 16 MB
_BEYOND = 10  # replicates beyond each bound, at least: a quantile of fewer is not to be trusted
_ROUNDING = 1e-6
_BLOCKS = 256  # number of blocks for the jackknife that estimates the acceleration


@dataclass(frozen=True, slots=True)
class Draws:
    """Bootstrap settings: ``confidence`` (0.5..1) of each bound, number of ``replicates``, ``seed``.

    Of a bound at a small risk there are more replicates, ``count``.
    """

    confidence: float = 0.95
    replicates: int = 2000
    seed: int = 0

    @property
    def count(self) -> int:
        """The number of replicates that are drawn."""
        return max(self.replicates, math.ceil(_BEYOND / (1 - self.confidence) - _ROUNDING))


def auc_drop(
    targets: NDArray[np.generic],
    baseline: NDArray[np.floating],
    candidate: NDArray[np.floating],
    draws: Draws = Draws(),
) -> MetricEvidence:
    """Return the drop of the area under the ROC curve, one class against the rest, averaged over the classes.

    Args:
        targets: Class indices, int (N,); or for multi-label data bool (N, classes).
        baseline: Scores of the baseline, (N, classes), larger meaning more likely; (N,) for two classes 0 and 1.
        candidate: Scores of the candidate, in the same shape.
        draws: Bootstrap settings.

    Raises:
        MeasureError: If shapes disagree, a score is not finite, or a class lacks positives or negatives.
    """
    return _ranked(_areas, targets, baseline, candidate, draws)


def ranking_precision_drop(
    targets: NDArray[np.generic],
    baseline: NDArray[np.floating],
    candidate: NDArray[np.floating],
    draws: Draws = Draws(),
) -> MetricEvidence:
    """Return the drop of the average precision, averaged over the classes.

    This is not the mean average precision of object detection, which matches boxes. Arguments as in ``auc_drop``.

    The bounds use half of the allowed risk: in simulation with 60 positives 7.5 % passed at the margin instead of 5 %.

    Raises:
        MeasureError: If shapes disagree, a score is not finite, or a class lacks positives or negatives.
    """
    return _ranked(_precisions, targets, baseline, candidate, draws, caution=2.0)


def error_increase(
    targets: NDArray[np.floating],
    baseline: NDArray[np.floating],
    candidate: NDArray[np.floating],
    draws: Draws = Draws(),
    *,
    squared: bool = False,
) -> MetricEvidence:
    """Return the increase of the mean absolute error, or of the root mean squared error, in the targets' unit.

    The bounds use only part of the allowed risk: in simulation with heavy tails (Laplace, 150 to 500 samples) 6.5 %
    passed at the margin instead of 5 %, and 9 % for RMSE. For errors without a fourth moment no bound of the RMSE
    holds.

    The upper bound counts with a row that was not seen, whose error grows by twice the largest increase that was seen,
    or, if that is more, from nothing to the largest error of either model. ``rarest`` of the result is the number of
    rows in which a model has an error at all: where nearly all are exact, the few others carry everything.

    Args:
        targets: True values, (N,) or (N, D).
        baseline: Predictions of the baseline, in the same shape.
        candidate: Predictions of the candidate, in the same shape.
        draws: Bootstrap settings.
        squared: Compute RMSE instead of MAE.

    Raises:
        MeasureError: If shapes disagree, or a value is not finite.
    """
    truth, before, after = (np.asarray(values, dtype=np.float64) for values in (targets, baseline, candidate))
    _check(before.shape == truth.shape == after.shape and truth.ndim > 0, truth, before, after)
    before_error, after_error = (np.abs(said - truth).reshape(len(truth), -1) for said in (before, after))
    rows = [(error**2 if squared else error).mean(axis=1) for error in (before_error, after_error)]
    worst = max(float(rows[0].max()), float(rows[1].max()), 2 * float((rows[1] - rows[0]).max()))
    models = _Models(
        before=_mean_error(rows[0], squared=squared),
        after=_mean_error(rows[1], squared=squared),
        before_with=_mean_error(np.append(rows[0], 0.0), squared=squared),
        after_with=_mean_error(np.append(rows[1], worst), squared=squared),
        unseen=1,
    )
    caution = 2.0 if squared else 1.25
    carrying = max(1, int(np.count_nonzero(rows[0] + rows[1])))
    return _evidence(models, np.zeros(len(truth), dtype=np.int64), carrying, draws, caution=caution)


def label_precision_drop(
    labels: NDArray[np.bool_],
    baseline: NDArray[np.floating],
    candidate: NDArray[np.floating],
    draws: Draws = Draws(),
) -> MetricEvidence:
    """Return the drop of the average precision, averaged over the labels that a row has, where rows have several.

    Rows are drawn whole: strata of equal sets would be as many as there are sets, and a row of each that was not seen
    a tenth of the data. A resample without a label leaves it out. The upper bound counts with one row that was not
    seen, which has as many labels as any, the rarest ones, and falls from the top to the bottom. In simulation (60 to
    300 rows, 3 or 5 labels, 10 positives or more of each) no candidate at the margin passed; with percentiles alone
    9 to 20 % did.

    Args:
        labels: Which labels each row has, bool (N, labels).
        baseline: Scores of the baseline, in the same shape, larger meaning more likely.
        candidate: Scores of the candidate, in the same shape.
        draws: Bootstrap settings.

    Raises:
        MeasureError: If shapes disagree, a score is not finite, or no row has a label.
    """
    kinds = labels.any(axis=0)
    if not kinds.any():
        raise MeasureError(f"Expected rows with labels to judge, got none in {len(labels)}: add some")
    before, after = (np.asarray(scores[:, kinds], dtype=np.float64) for scores in (baseline, candidate))
    _check(labels.shape == baseline.shape == candidate.shape, labels, before, after)
    relevant = labels[:, kinds]
    top = 1 + max(float(np.abs(before).max()), float(np.abs(after).max()))
    counts = relevant.sum(axis=0)
    unseen = np.zeros((1, len(counts)), dtype=bool)
    unseen[0, np.argsort(counts, kind="stable")[: int(relevant.sum(axis=1).max())]] = True
    ranked_right = np.where(unseen, top, -top)
    models = _Models(
        before=_mean_of_labels(relevant, before),
        after=_mean_of_labels(relevant, after),
        before_with=_mean_of_labels(np.concatenate([relevant, unseen]), np.concatenate([before, ranked_right])),
        after_with=_mean_of_labels(np.concatenate([relevant, unseen]), np.concatenate([after, -ranked_right])),
        unseen=1,
    )
    rarest = max(1, int(np.minimum(counts, len(labels) - counts).min()))
    return _evidence(models, np.zeros(len(labels), dtype=np.int64), rarest, draws, worse=-1.0)


def label_f1_drop(
    labels: NDArray[np.bool_],
    baseline: NDArray[np.bool_],
    candidate: NDArray[np.bool_],
    draws: Draws = Draws(),
) -> MetricEvidence:
    """Return the drop of F1 over all labels of all rows (micro), where rows have several labels.

    The upper bound counts with one row that was not seen, which has as many labels as any, all of which are lost. In
    the same simulation 2 % at most passed at the margin.

    Args:
        labels: Which labels each row has, bool (N, labels).
        baseline: Which ones the baseline answers, in the same shape.
        candidate: Those of the candidate.
        draws: Bootstrap settings.

    Raises:
        MeasureError: If shapes disagree, or no row has a label.
    """
    _check(labels.shape == baseline.shape == candidate.shape, labels, baseline, candidate)
    if not labels.any():
        raise MeasureError(f"Expected rows with labels to judge, got none in {len(labels)}: add some")
    most = float(labels.sum(axis=1).max())
    before, after = (_counted(labels, said) for said in (baseline, candidate))
    models = _Models(
        before=_f1_of(before), after=_f1_of(after), before_with=_f1_of(np.append(before, [[most] * 3], axis=0)),
        after_with=_f1_of(np.append(after, [[0.0, 0.0, most]], axis=0)), unseen=1,
    )  # fmt: skip
    rarest = int(labels.any(axis=1).sum())
    return _evidence(models, np.zeros(len(labels), dtype=np.int64), rarest, draws, worse=-1.0)


def _counted(labels: NDArray[np.bool_], said: NDArray[np.bool_]) -> Floats:
    """Return the right labels, the answered ones and the true ones of each row, float64 (N, 3)."""
    return np.stack([part.sum(axis=1) for part in (labels & said, said, labels)], axis=1).astype(np.float64)


def _f1_of(counts: Floats) -> Metric:
    def f1(weights: Floats) -> Floats:
        right, said, true = (weights @ counts).T
        return np.asarray(2 * right / np.maximum(said + true, 1e-12))

    return f1


def _mean_of_labels(relevant: NDArray[np.bool_], scores: Floats) -> Metric:
    each = average_precisions(relevant, scores)

    def mean(weights: Floats) -> Floats:
        values = each(weights)
        there = np.isfinite(values)
        return np.asarray(np.where(there, values, 0.0).sum(axis=1) / np.maximum(there.sum(axis=1), 1))

    return mean


def score_drop(
    baseline: NDArray[np.floating],
    candidate: NDArray[np.floating],
    sources: NDArray[np.generic] | None = None,
    draws: Draws = Draws(),
) -> MetricEvidence:
    """Return the drop of the mean of a score of any range; larger is better.

    A source counts once, with the mean of its rows. The bounds are those of ``error_increase`` for the distance to the
    best score that was seen: a row that was not seen may fall from there to the worst that was.

    Args:
        baseline: Scores of the baseline, (N,).
        candidate: Scores of the candidate, (N,).
        sources: The source of each row, (N,); None: every row is its own.
        draws: Bootstrap settings.

    Raises:
        MeasureError: If shapes disagree, or a score is not finite.
    """
    scores = [np.asarray(values, dtype=np.float64) for values in (baseline, candidate)]
    _check(scores[0].shape == scores[1].shape and scores[0].ndim == 1, *scores)
    if sources is not None:
        _, group, count = np.unique(sources, return_inverse=True, return_counts=True)
        scores = [np.bincount(group, values) / count for values in scores]
    best = float(max(scores[0].max(), scores[1].max()))
    found = error_increase(np.zeros_like(scores[0]), best - scores[0], best - scores[1], draws)
    return replace(found, baseline=best - found.baseline, candidate=best - found.candidate)


def _ranked(
    metric: Callable[[NDArray[np.bool_], Floats], Metric],
    targets: NDArray[np.generic],
    baseline: NDArray[np.floating],
    candidate: NDArray[np.floating],
    draws: Draws,
    *,
    caution: float = 1.0,
) -> MetricEvidence:
    before, after = (_columns(np.asarray(scores, dtype=np.float64)) for scores in (baseline, candidate))
    relevant = _relevant(targets, before.shape[1])
    _check(relevant.shape == before.shape == after.shape, relevant, before, after)
    counts = relevant.sum(axis=0)
    rarest = int(min(counts.min(), (len(relevant) - counts).min()))
    if rarest < 1:
        message = f"Expected positives and negatives of every class, got positives {counts.tolist()} of {len(relevant)}"
        raise MeasureError(f"{message}: leave the class out or label more")
    kinds, strata = np.unique(relevant, axis=0, return_inverse=True)
    with_unseen = np.concatenate([relevant, kinds])
    top = 1 + max(float(np.abs(before).max()), float(np.abs(after).max()))
    right = np.where(kinds, top, -top)  # a row of each kind, ranked right by the baseline, and by the candidate wrong
    wrong = np.where(kinds | ~kinds.any(axis=1, keepdims=True), -right, right)
    models = _Models(
        before=metric(relevant, before),
        after=metric(relevant, after),
        before_with=metric(with_unseen, np.concatenate([before, right])),
        after_with=metric(with_unseen, np.concatenate([after, wrong])),
        unseen=len(kinds),
    )
    return _evidence(models, strata.reshape(-1), rarest, draws, caution=caution, worse=-1.0)


def _columns(scores: Floats) -> Floats:
    return scores[:, None] if scores.ndim == 1 else scores


def _relevant(targets: NDArray[np.generic], classes: int) -> NDArray[np.bool_]:
    if targets.ndim > 1 or targets.dtype == np.bool_:
        return np.asarray(_columns(targets.astype(np.float64)) > 0)
    if targets.size and not (targets.min() >= 0 and targets.max() < max(classes, 2)):
        message = (
            f"Expected classes 0 to {max(classes, 2) - 1}, got {targets.min()} to {targets.max()}: check the labels"
        )
        raise MeasureError(message)
    wanted = np.array([1]) if classes == 1 else np.arange(classes)
    return np.asarray(targets[:, None] == wanted)


def _check(agree: bool, *arrays: NDArray[np.generic]) -> None:  # noqa: FBT001 - what is checked
    shapes = [array.shape for array in arrays]
    if not agree or not len(arrays[0]):
        message = f"Expected targets, baseline and candidate of the same N > 0 samples, got shapes {shapes}"
        raise MeasureError(message)
    if not all(np.isfinite(array.astype(np.float64)).all() for array in arrays):
        message = "Expected finite targets and scores, got NaN or infinity: check the model and its inputs"
        raise MeasureError(message)


def _areas(relevant: NDArray[np.bool_], scores: Floats) -> Metric:
    plans = [_Order.rising(relevant[:, i], scores[:, i]) for i in range(scores.shape[1])]

    def mean(weights: Floats) -> Floats:
        return np.asarray(np.mean([plan.area(weights) for plan in plans], axis=0))

    return mean


def _precisions(relevant: NDArray[np.bool_], scores: Floats) -> Metric:
    each = average_precisions(relevant, scores)
    return lambda weights: np.asarray(each(weights).mean(axis=1))


def average_precisions(relevant: NDArray[np.bool_], scores: NDArray[np.floating]) -> Metric:
    """Return the average precision of each column as a function of weights, (R, columns); NaN without positives.

    Args:
        relevant: bool (N, columns).
        scores: In the same shape, larger meaning more likely; equal ones count together.
    """
    wide = np.asarray(scores, dtype=np.float64)
    plans = [_Order.rising(relevant[:, i], -wide[:, i]) for i in range(wide.shape[1])]

    def each(weights: Floats) -> Floats:
        with np.errstate(invalid="ignore"):
            return np.stack([plan.precision(weights) for plan in plans], axis=1)

    return each


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Order:
    """Samples sorted by their score for one class; ``first`` and ``end`` bound the tied scores of each positive."""

    order: NDArray[np.intp]
    positive: NDArray[np.bool_]
    first: NDArray[np.intp]
    end: NDArray[np.intp]

    @classmethod
    def rising(cls, positive: NDArray[np.bool_], scores: Floats) -> _Order:
        order = np.argsort(scores, kind="stable")
        ranked, marked = scores[order], positive[order]
        first, end = (np.searchsorted(ranked, ranked[marked], side=side) for side in ("left", "right"))
        return cls(order=order, positive=marked, first=first, end=end)

    def area(self, weights: Floats) -> Floats:
        """Return the share of (positive, negative) pairs in the right order, counting a tie as half; (R,)."""
        drawn = weights[:, self.order]
        positives, below = drawn[:, self.positive], _cumulated(np.where(self.positive, 0.0, drawn))
        pairs = positives.sum(axis=1) * below[:, -1]
        return np.asarray((positives * (below[:, self.first] + below[:, self.end])).sum(axis=1) / 2 / pairs)

    def precision(self, weights: Floats) -> Floats:
        """Return the precision at the score of each positive, averaged over the positives; (R,)."""
        drawn = weights[:, self.order]
        found = _cumulated(np.where(self.positive, drawn, 0.0))[:, self.end]
        shown = np.maximum(_cumulated(drawn)[:, self.end], 1e-12)
        positives = drawn[:, self.positive]
        return np.asarray((positives * found / shown).sum(axis=1) / positives.sum(axis=1))


def _cumulated(values: Floats) -> Floats:
    return np.concatenate([np.zeros((len(values), 1)), np.cumsum(values, axis=1)], axis=1)


def _mean_error(rows: Floats, *, squared: bool) -> Metric:
    def mean(weights: Floats) -> Floats:
        means = weights @ rows / weights.sum(axis=1)
        return np.asarray(np.sqrt(means) if squared else means)

    return mean


@dataclass(frozen=True, slots=True, kw_only=True)
class _Models:
    """The metric of both models: of the rows that were seen, and of these with so many ``unseen`` rows at their end."""

    before: Metric
    after: Metric
    before_with: Metric
    after_with: Metric
    unseen: int


def _evidence(models: _Models, strata: NDArray[np.integer], rarest: int, draws: Draws, *,
              caution: float = 1.0, worse: float = 1.0) -> MetricEvidence:  # fmt: skip
    n = len(strata)
    generator = np.random.default_rng(draws.seed)

    def increase(weights: Floats) -> Floats:
        return worse * (models.after(weights) - models.before(weights))

    every = np.ones((1, n))
    drop = float(increase(every)[0])
    replicates = np.concatenate([increase(weights) for weights in _resampled(strata, draws.count, generator)])
    with np.errstate(invalid="ignore", divide="ignore"):  # a block may hold all of a class: left out below
        left_out = np.concatenate([increase(weights) for weights in _left_out(n, generator)])
    z = (
        float(stats.t.ppf(1 - (1 - draws.confidence) / caution, max(rarest - 1, 1)))
        * (rarest / max(rarest - 1, 1)) ** 0.5
    )
    lower, upper = _bca(drop, replicates, left_out[np.isfinite(left_out)], z)
    guarded = np.concatenate(
        [
            worse * (models.after_with(weights) - models.before_with(weights))
            for weights in _exponential(n + models.unseen, draws.count, generator)
        ]
    )
    return MetricEvidence(
        drop=drop,
        lower=lower,
        upper=max(upper, float(np.quantile(guarded, draws.confidence))),
        confidence=draws.confidence,
        n=n,
        rarest=rarest,
        baseline=float(models.before(every)[0]),
        candidate=float(models.after(every)[0]),
    )


def _exponential(n: int, replicates: int, generator: np.random.Generator) -> Iterator[Floats]:
    """Yield weights (R, N), ``replicates`` rows in all: divided by their sum they are uniform on the simplex."""
    rows = max(1, _AT_ONCE // n)
    for start in range(0, replicates, rows):
        yield generator.exponential(size=(min(rows, replicates - start), n))


def _resampled(strata: NDArray[np.integer], replicates: int, generator: np.random.Generator) -> Iterator[Floats]:
    """Yield weights (R, N), ``replicates`` rows in all; each stratum is resampled with replacement."""
    rows = max(1, _AT_ONCE // len(strata))
    groups = [np.flatnonzero(strata == value) for value in np.unique(strata)]
    for start in range(0, replicates, rows):
        count = min(rows, replicates - start)
        weights = np.empty((count, len(strata)))
        for group in groups:
            weights[:, group] = generator.multinomial(len(group), np.full(len(group), 1 / len(group)), size=count)
        yield weights


def _left_out(n: int, generator: np.random.Generator) -> Iterator[Floats]:
    """Yield weights (R, N), each leaving out one block of samples."""
    blocks = min(n, _BLOCKS)
    block = generator.permutation(n) % blocks
    rows = max(1, _AT_ONCE // n)
    for start in range(0, blocks, rows):
        numbers = np.arange(start, min(start + rows, blocks))
        yield np.asarray(block != numbers[:, None], dtype=np.float64)


def _bca(value: float, replicates: Floats, left_out: Floats, reach: float) -> tuple[float, float]:
    """Return the lower and upper bound; ``reach`` is their distance in standard errors if the replicates are normal.

    Source: Efron 1987: quantile at Phi(z0 + (z0 + z) / (1 - a (z0 + z))), with z0 the bias and a the acceleration.
    """
    below = (np.count_nonzero(replicates < value) + np.count_nonzero(replicates == value) / 2) / len(replicates)
    bias = float(special.ndtri(np.clip(below, 1 / len(replicates), 1 - 1 / len(replicates))))
    influence = left_out.mean() - left_out
    spread = float((influence**2).sum())
    acceleration = float((influence**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
    edges = []
    for z in (-reach, reach):
        moved = bias + z
        edges.append(float(special.ndtr(bias + moved / max(1 - acceleration * moved, 1e-3))))
    lower, upper = np.quantile(replicates, edges)
    return float(min(lower, value)), float(max(upper, value))
