"""Paired comparison of two accuracies: tests and confidence bounds for the difference of two proportions. Pure.

Computes bounds and p-values. Does not decide what passes (``gates`` does) nor how many samples are needed (``power``
does), and measures nothing.

Notation, as in the literature: of ``n`` paired samples ``b`` were right under the baseline only (``lost``) and
``c`` under the candidate only (``won``); the drop in accuracy is d = (b - c) / n.

Sources: T. Tango, Equivalence test and confidence interval for the difference in proportions for the
paired-sample design, Statistics in Medicine 17 (1998) 891-908; R. G. Newcombe, Improved confidence intervals for
the difference between binomial proportions based on paired data, Statistics in Medicine 17 (1998) 2635-2650;
H.-M. Hsueh, J.-P. Liu, J. J. Chen, Unconditional exact tests for equivalence or noninferiority for paired binary
endpoints, Biometrics 57 (2001) 478-483; R. L. Berger, D. D. Boos, P values maximized over a confidence set for
the nuisance parameter, JASA 89 (1994) 1012-1016; E. B. Wilson, JASA 22 (1927) 209-212.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

EXACT_UP_TO = 40
"""Up to this number of discordant pairs the bound is exact; Tango's bound exceeds its nominal risk when there are few
(5.3 % for 5 % at 620 samples and 1 % discordance, enumerated in the tests)."""

SCORE_CAUTION = 1.02
"""Factor on the score test's p-value: above ``EXACT_UP_TO`` pairs its enumerated risk was up to 5.006 % for 5 %."""

_NUISANCE_RISK = 5e-4  # Berger and Boos: the risk of the nuisance parameter's interval, added to every p-value
_NUISANCE_PART = 100  # of the risk
_NUISANCE_STEPS = 25
_TAIL = 1e-7  # probability of the tables that are not enumerated; counted as evidence for the null
_TOLERANCE = 1e-6
_ROUNDING = 1e-9

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Paired:
    """Of ``n`` samples only the baseline got ``lost`` (b) right, and only the candidate got ``won`` (c) right.

    A sample is an independent source; ``rows``: how many rows these have, 0 if each has one.
    """

    lost: int
    won: int
    n: int
    rows: int = field(default=0, kw_only=True)

    @property
    def drop(self) -> float:
        """The drop in accuracy, (b - c) / n; negative when the candidate is better."""
        return (self.lost - self.won) / self.n if self.n else math.nan

    @property
    def discordance(self) -> float:
        """The share of samples that exactly one of the two models gets right."""
        return (self.lost + self.won) / self.n if self.n else math.nan

    @property
    def swapped(self) -> Paired:
        """The same counts with baseline and candidate exchanged."""
        return Paired(self.won, self.lost, self.n, rows=self.rows)

    @property
    def counted(self) -> str:
        """The number of samples as text, with that of the rows if there are more."""
        return f"{self.n} sources with {self.rows} rows" if self.rows else str(self.n)


def paired(
    baseline_right: NDArray[np.bool_], candidate_right: NDArray[np.bool_], sources: NDArray[np.str_] | None = None
) -> Paired:
    """Return the paired counts of two boolean arrays, (N,) each; ``sources``: str (N,), None: each row is its own.

    Each source counts as one sample, as what one row of it, drawn at random, would be on average: of a source of ten
    rows with four lost, 0.4 are lost. The sums are rounded against the candidate. Averaging over the draw leaves the
    mean and makes the counts vary less than those of single rows, for which the tests hold (``scripts/bench/gates.py``
    has the shares of false passes).

    Source: E. B. Hoffman, P. K. Sen, C. R. Weinberg, Within-cluster resampling, Biometrika 88 (2001) 1121-1134.
    """
    lost, won = baseline_right & ~candidate_right, ~baseline_right & candidate_right
    if sources is not None:
        own = np.unique(sources, return_inverse=True)[1].reshape(-1)
        rows = np.bincount(own)
        if len(rows) < len(own):
            shares = [float((np.bincount(own, flags) / rows).sum()) for flags in (lost, won)]
            lost_sources, won_sources = math.ceil(shares[0] - _ROUNDING), math.floor(shares[1] + _ROUNDING)
            return Paired(lost_sources, won_sources, len(rows), rows=len(own))
    return Paired(int(np.count_nonzero(lost)), int(np.count_nonzero(won)), int(baseline_right.size))


def score_statistic(lost: Floats, won: Floats, n: int, drop: float) -> Floats:
    """Return Tango's score statistic of H0: d = ``drop``; ``lost`` and ``won`` any shape, elementwise.

    Source: Tango 1998, equations 3 to 5: T = (b - c - n d) / sqrt(n (2 q + d (1 - d))), q the maximum-likelihood
    estimate of the candidate-only probability under H0.
    """
    linear = -lost - won + (2 * n - lost + won) * drop
    constant = -won * drop * (1 - drop)
    root = np.sqrt(np.maximum(linear**2 - 8 * n * constant, 0))
    # q = (root - linear) / (4 n), avoiding cancellation: both forms are the same root of 2 n q^2 + linear q + constant
    stable = -2 * constant / np.where(linear > 0, root + linear, 1)
    nuisance = np.where(linear > 0, stable, (root - linear) / (4 * n))
    variance = n * (2 * nuisance + drop * (1 - drop))
    excess = lost - won - n * drop
    ratio = excess / np.sqrt(np.where(variance > 0, variance, 1))
    without_spread = np.where(excess > 0, np.inf, np.where(excess < 0, -np.inf, 0.0))
    return np.asarray(np.where(variance > 0, ratio, without_spread), dtype=np.float64)


def score_upper(counts: Paired, confidence: float) -> float:
    """Return Tango's one-sided upper bound of the drop at ``confidence`` (0..1); 1.0 without samples.

    Source: Tango 1998, section 3: the largest d with T(d) >= -z.
    """
    if not counts.n:
        return 1.0
    z = stats.norm.ppf(confidence)
    lost, won = np.array(float(counts.lost)), np.array(float(counts.won))
    return _largest(lambda drop: float(score_statistic(lost, won, counts.n, drop)) >= -z, counts.drop)


def exact_p_value(counts: Paired, margin: float, risk: float = 0.05) -> float:
    """Return the p-value of H0: d >= ``margin`` against d < margin, exact and unconditional.

    Sums the probability of all tables whose score statistic is at most the observed one, maximised over a
    1 - g Clopper-Pearson interval of the discordance, and adds g: a hundredth of the ``risk`` that the p-value is
    compared with, at most 0.0005, so that there is a table that passes at any risk.
    Source: Hsueh, Liu and Chen 2001 (ordering by the score statistic); Berger and Boos 1994 (the interval).
    """
    if not counts.n:
        return 1.0
    return float(exact_p_values(np.array([float(counts.lost)]), counts.lost + counts.won, counts.n, margin, risk)[0])


def exact_p_values(lost: Floats, discordant: int, n: int, margin: float, risk: float = 0.05) -> Floats:
    """Return ``exact_p_value`` for each ``lost``, (K,), when ``discordant`` of ``n`` samples are lost or won."""
    nuisance = min(_NUISANCE_RISK, risk / _NUISANCE_PART)
    low, high = _clopper_pearson(discordant, n, nuisance)
    low, high = max(low, abs(margin)), max(high, abs(margin))
    observed = score_statistic(lost, discordant - lost, n, margin) + 1e-9
    statistic, b, c = _tables(int(special.bdtrik(1 - _TAIL, n, high)) + 2, n, margin, float(observed.max()))
    mass = trinomial(b, c, n, margin, np.linspace(low, high, _NUISANCE_STEPS)[:, None])
    below = np.concatenate([np.zeros((_NUISANCE_STEPS, 1)), np.cumsum(mass, axis=1)], axis=1)
    worst = below[:, np.searchsorted(statistic, observed, side="right")].max(axis=0)
    return np.asarray(np.minimum(1.0, worst + _TAIL + nuisance), dtype=np.float64)


def _tables(cells: int, n: int, margin: float, largest: float) -> tuple[Floats, Floats, Floats]:
    """Return statistic, lost and won, (K,) each, of all tables with at most ``cells`` discordant pairs.

    Sorted by rising statistic, up to ``largest``.
    """
    lost, won = (axis.ravel().astype(float) for axis in np.meshgrid(np.arange(cells + 1), np.arange(cells + 1)))
    inside = lost + won <= min(cells, n)
    lost, won = lost[inside], won[inside]
    statistic = score_statistic(lost, won, n, margin)
    kept = np.flatnonzero(statistic <= largest)
    kept = kept[np.argsort(statistic[kept], kind="stable")]
    return statistic[kept], lost[kept], won[kept]


def trinomial(lost: Floats, won: Floats, n: int, drop: float, discordance: float | Floats) -> Floats:
    """Return the probability of each table (``lost``, ``won``) of ``n`` pairs at the true ``drop`` and ``discordance``.

    All arguments broadcast.
    """
    first, second = np.maximum((discordance + drop) / 2, 0), np.maximum((discordance - drop) / 2, 0)
    rest = n - lost - won
    log_ways = special.gammaln(n + 1) - special.gammaln(lost + 1) - special.gammaln(won + 1) - special.gammaln(rest + 1)
    log_mass = _times_log(lost, first) + _times_log(won, second) + _times_log(rest, 1 - np.asarray(discordance))
    return np.asarray(np.exp(log_ways + log_mass), dtype=np.float64)


def _times_log(count: Floats, share: float | Floats) -> Floats:
    """Return count x log(share), 0 where the count is 0; the logarithm is computed once per share, not per pair."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(count > 0, count * np.log(share), 0.0), dtype=np.float64)


def p_value(counts: Paired, margin: float, risk: float = 0.05) -> float:
    """Return the p-value of H0: the drop is at least ``margin``, to compare with ``risk``.

    It is exact up to ``EXACT_UP_TO`` discordant pairs.
    """
    if not counts.n:
        return 1.0
    if counts.lost + counts.won <= EXACT_UP_TO and abs(margin) < 1:
        return exact_p_value(counts, margin, risk)
    statistic = score_statistic(np.array(float(counts.lost)), np.array(float(counts.won)), counts.n, margin)
    return float(min(1.0, stats.norm.cdf(statistic) * SCORE_CAUTION))


def drop_upper(counts: Paired, confidence: float) -> float:
    """Return the one-sided upper confidence bound of the drop: the largest d that ``p_value`` does not reject."""
    if not counts.n:
        return 1.0
    if counts.lost + counts.won > EXACT_UP_TO:
        return score_upper(counts, 1 - (1 - confidence) / SCORE_CAUTION)
    above = min(1.0, 2 * max(score_upper(counts, confidence), 0) + 10 / counts.n)
    risk = 1 - confidence
    return _largest(lambda drop: exact_p_value(counts, drop, risk) > risk, counts.drop, above)


def drop_lower(counts: Paired, confidence: float) -> float:
    """Return the one-sided lower confidence bound of the drop; -1.0 without samples."""
    return -drop_upper(counts.swapped, confidence)


def _largest(holds: Callable[[float], bool], low: float, high: float = 1.0) -> float:
    while high - low > _TOLERANCE:
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return high


def wilson(successes: int, n: int, confidence: float) -> tuple[float, float]:
    """Return Wilson's two-sided interval of a proportion; (0, 1) without samples.

    Source: Wilson 1927; Newcombe 1998, Statistics in Medicine 17, 857-872, method 3.
    """
    if not n:
        return 0.0, 1.0
    z = float(stats.norm.ppf((1 + confidence) / 2))
    share, spread = successes / n, z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def proportion_bounds(successes: int, n: int, confidence: float) -> tuple[float, float]:
    """Return the exact one-sided bounds of a proportion, each at ``confidence``; (0, 1) without samples.

    Source: Clopper and Pearson 1934, Biometrika 26, 404-413.
    """
    return _clopper_pearson(successes, n, 2 * (1 - confidence)) if n else (0.0, 1.0)


def _clopper_pearson(successes: int, n: int, risk: float) -> tuple[float, float]:
    low = special.betaincinv(successes, n - successes + 1, risk / 2) if successes else 0.0
    high = special.betaincinv(successes + 1, n - successes, 1 - risk / 2) if successes < n else 1.0
    return float(low), float(high)
