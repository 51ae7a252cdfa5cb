"""How much worse a classifier's confidence became: the root mean square calibration error, with bounds. Pure.

Computes the bounds of the increase without a bootstrap: the binned calibration error is biased upwards, most where it
is smallest; a bootstrap repeats the bias, and in simulation it let half of the candidates at the margin pass. Three
things keep the risk here (``scripts/bench/metric_gates.py``): the noise of each bin is subtracted from its squared
error, which removes the bias; the bound of the increase is a score bound, which includes the noise that the increase
itself adds; and the root is taken at a lower bound of the baseline's error, where an increase counts most.

Source: A. Kumar, P. Liang, T. Ma, Verified Uncertainty Calibration, NeurIPS 2019, section 4 (the debiased estimator);
Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 2 (bins of equal width).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from compressor.errors import MeasureError
from compressor.statistics.bootstrap import Draws
from compressor.statistics.bounds import MetricEvidence

Floats = NDArray[np.float64]
BINS = 15
_OF_INCREASE = 0.8
"""Share of the risk that is spent on the bound of the increase; the rest is spent on that of the baseline."""


@dataclass(frozen=True, slots=True, eq=False)
class _Squared:
    """The squared calibration error of one model.

    ``value``: unbiased, so it may be below 0; ``influence``: of each sample, (N,); ``noise``: mean variance within a
    bin of correctness minus confidence.
    """

    value: float
    influence: Floats
    noise: float

    def reach(self, z: float) -> float:
        """Return ``z`` standard errors of the value."""
        return float(z * (self.influence.var(ddof=1) / len(self.influence)) ** 0.5)


def calibration_error_increase(
    targets: NDArray[np.generic],
    baseline: NDArray[np.floating],
    candidate: NDArray[np.floating],
    draws: Draws,
) -> MetricEvidence:
    """Return the increase of the root mean square calibration error over ``BINS`` bins of confidence, 0..1.

    Args:
        targets: Classes int (N,).
        baseline: Log-probabilities of the baseline, (N, classes).
        candidate: Log-probabilities of the candidate, of the same shape.
        draws: Only its ``confidence`` is used; nothing is resampled.

    Raises:
        MeasureError: If shapes disagree, there are fewer than two samples, or a score is not finite.
    """
    before, after = (np.asarray(scores, dtype=np.float64) for scores in (baseline, candidate))
    _check(targets, before, after)
    first, second = (_squared(targets, scores) for scores in (before, after))
    n, risk = len(targets), 1 - draws.confidence
    z, own = (float(stats.t.ppf(1 - risk * share, n - 1)) for share in (_OF_INCREASE, 1 - _OF_INCREASE))
    low, high = (max(0.0, first.value + sign * first.reach(own)) for sign in (-1, 1))
    start, end = (max(0.0, one.value) ** 0.5 for one in (first, second))
    upper, lower = _upper(first, second, z), second.value - first.value - _paired(first, second).reach(z)
    return MetricEvidence(
        drop=end - start,
        lower=min(end - start, _root(high, lower)),
        upper=max(end - start, _root(low, upper)),
        confidence=draws.confidence,
        n=n,
        rarest=min(_rarest(targets, before), _rarest(targets, after)),
        baseline=start,
        candidate=end,
    )


def _root(squared: float, increase: float) -> float:
    """Return the increase of the root when ``squared`` grows by ``increase``; the radicand is clipped at 0."""
    return float(max(squared + increase, 0.0) ** 0.5 - squared**0.5)


def _paired(first: _Squared, second: _Squared) -> _Squared:
    return _Squared(second.value - first.value, second.influence - first.influence, max(first.noise, second.noise))


def _upper(first: _Squared, second: _Squared, z: float) -> float:
    """Return the largest increase D of the squared error that is not rejected: D - found <= z * sqrt(A + B * D).

    A is the paired variance of the estimate; B * D is the variance that an error of size sqrt(D) adds despite pairing.
    """
    both = _paired(first, second)
    a, b = both.reach(z) ** 2, z**2 * 4 * both.noise / len(both.influence)
    return float(both.value + (b + (b**2 + 4 * max(a + b * both.value, 0.0)) ** 0.5) / 2)


def _squared(targets: NDArray[np.generic], scores: Floats) -> _Squared:
    chance = np.exp(scores.max(axis=1))
    gap = (scores.argmax(axis=1) == targets) - chance
    place = np.minimum((chance * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    means = np.bincount(place, gap, minlength=BINS) / np.maximum(counts, 1)
    rest = gap - means[place]
    squares = np.bincount(place, rest**2, minlength=BINS)
    own_noise = squares / np.maximum(counts - 1, 1) / np.maximum(counts, 1)
    value = float((counts * (means**2 - own_noise)).sum() / len(gap))
    return _Squared(value, means[place] ** 2 + 2 * means[place] * rest, float(squares.sum() / len(gap)))


def _rarest(targets: NDArray[np.generic], scores: Floats) -> int:
    right = int(np.count_nonzero(scores.argmax(axis=1) == targets))
    return min(right, len(targets) - right)


def _check(targets: NDArray[np.generic], before: Floats, after: Floats) -> None:
    if before.shape != after.shape or before.ndim != 2 or before.shape[:1] != targets.shape or len(targets) < 2:  # noqa: PLR2004 - rows and classes, and a variance needs two
        shapes = [array.shape for array in (targets, before, after)]
        raise MeasureError(f"Expected classes (N,) and log-probabilities (N, classes), N of 2 or more, got {shapes}")
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        message = "Expected finite log-probabilities, got NaN or infinity: check the model and its inputs"
        raise MeasureError(message)
