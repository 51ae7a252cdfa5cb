"""How many labelled samples a paired gate needs: the exact power of the test that the gate applies. Pure.

Computes the probability that a gate passes, and the number of samples that makes it large enough. Does not decide what
passes. The textbook's normal approximation only starts the search: at 1 % discordance and a margin of 1 point it gives
619 samples, at which the gate passes an equal candidate 66 % of the time, and at which no test with a risk of 5 % could
pass it more than 72 % of the time (``scripts/bench/gates.py`` prints both).

Source: J.-M. Nam, Biometrics 53 (1997) 1422-1430 (the approximation); the rest is enumeration.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import stats

from compressor.statistics.paired import EXACT_UP_TO, SCORE_CAUTION, Floats, Paired, exact_p_values, score_statistic

POWER = 0.8
MAX_SAMPLES = 10_000_000

_UNLIKELY = 1e-6  # tail probability of the numbers of discordant pairs that are not enumerated, at either end
_STEP = 1.1
_CLOSE = 100  # the search stops within a hundredth of the number of samples
_ROUGHLY = 20
_NOTHING = Paired(0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is known before the samples are labelled.

    ``margin``: the drop (-1..1) that must be rejected with ``confidence``; ``discordance``: true share (0..1) of
    samples that exactly one model gets right; ``drop``: true drop, in absolute value at most the discordance; ``seen``:
    counts already observed.
    """

    margin: float
    discordance: float
    drop: float = 0.0
    confidence: float = 0.95
    seen: Paired = _NOTHING

    def power(self, n: int, *, exact_up_to: int = EXACT_UP_TO) -> float:
        """Return the probability (0..1) that ``n`` samples, including those seen, reject the drop.

        All tables are enumerated; the slower exact test decides up to ``exact_up_to`` discordant pairs.
        """
        rest, before = n - self.seen.n, self.seen.lost + self.seen.won
        if rest < 0 or n < 1:
            return 0.0
        few, most = (int(stats.binom.ppf(edge, rest, self.discordance)) for edge in (_UNLIKELY, 1 - _UNLIKELY))
        drawn = np.arange(max(0, few), most + 1.0)
        share = min(1.0, max(0.0, (1 + self.drop / self.discordance) / 2)) if self.discordance else 0.5
        allowed = self._most_lost(drawn + before, n, exact_up_to) - self.seen.lost
        passing = np.where(allowed >= 0, stats.binom.cdf(allowed, drawn, share), 0.0)
        return float((stats.binom.pmf(drawn, rest, self.discordance) * passing).sum())

    def _most_lost(self, discordant: Floats, n: int, exact_up_to: int) -> Floats:
        """Return the most lost pairs with which each number of discordant pairs, (K,) rising, passes; -1: none."""
        risk, few = 1 - self.confidence, discordant <= exact_up_to
        exact = [_most_lost_exact(int(count), n, self.margin, risk) for count in discordant[few]]
        most = discordant[~few]
        low, high = np.full(len(most), -1.0), most
        while (low < high).any():  # the statistic rises with the number lost
            middle = np.ceil((low + high) / 2)
            passes = stats.norm.cdf(score_statistic(middle, most - middle, n, self.margin)) * SCORE_CAUTION <= risk
            low, high = np.where(passes, middle, low), np.where(passes, high, middle - 1)
        return np.concatenate([np.asarray(exact, dtype=np.float64), low])

    def samples(self, power_ratio: float, start: int, *, close: int = _CLOSE) -> int:
        """Return approximately the smallest number of samples, at least ``start``, whose power is ``power_ratio``.

        Searches with the fast score test first, then from there with the test that the gate applies, to one part in
        ``close``.
        """
        fast = _least(lambda n: self.power(n, exact_up_to=-1) >= power_ratio, self.seen.n, start)
        return _least(lambda n: self.power(n) >= power_ratio, max(self.seen.n, math.floor(fast / _STEP)), fast, close)


@lru_cache(maxsize=16384)
def _most_lost_exact(discordant: int, n: int, margin: float, risk: float) -> int:
    lost = np.arange(min(discordant, math.ceil((discordant + n * margin) / 2)) + 1.0)  # above, the drop exceeds margin
    return int(np.count_nonzero(exact_p_values(lost, discordant, n, margin, risk) <= risk)) - 1


@lru_cache(maxsize=1024)
def samples_for(margin: float, discordance: float, *, drop: float = 0.0, confidence: float = 0.95,
                power_ratio: float = POWER) -> int:  # fmt: skip
    """Return how many paired samples show a drop below ``margin`` with power ``power_ratio``; 0: no number does.

    Power is a sawtooth in the number of samples: the number returned reaches it, about one per cent fewer do not.
    """
    if drop >= margin:
        return 0
    plan = Plan(margin=margin, discordance=max(discordance, abs(drop)), drop=drop, confidence=confidence)
    start = approximate_samples_for(margin, plan.discordance, drop=drop, confidence=confidence, power_ratio=power_ratio)
    return plan.samples(power_ratio, max(start, 1))


def approximate_samples_for(margin: float, discordance: float, *, drop: float = 0.0, confidence: float = 0.95,
                            power_ratio: float = POWER) -> int:  # fmt: skip
    """Return the textbook's number for ``samples_for``, which is too small when few pairs are discordant.

    Source: Nam 1997: n = (z_confidence + z_power)^2 (discordance - drop^2) / (margin - drop)^2.
    """
    z = float(stats.norm.ppf(confidence) + stats.norm.ppf(power_ratio))
    return min(MAX_SAMPLES, math.ceil(z * z * (discordance - drop * drop) / (margin - drop) ** 2))


def samples_still_needed(counts: Paired, margin: float, *, confidence: float = 0.95, power_ratio: float = POWER) -> int:
    """Return how many more samples at the observed rates reach ``margin`` with ``power_ratio``; 0: no number does.

    The observed counts are kept, further samples follow the observed rates. Another test on the grown data is
    another look, with less of the risk (``gates.looks``).
    """
    if not counts.n:
        return samples_for(margin, max(margin, 0.0), confidence=confidence, power_ratio=power_ratio)
    if counts.drop >= margin:
        return 0
    plan = Plan(margin=margin, discordance=counts.discordance, drop=counts.drop, confidence=confidence, seen=counts)
    return max(1, plan.samples(power_ratio, counts.n + 1, close=_ROUGHLY) - counts.n)


def _least(holds: Callable[[int], bool], low: int, high: int, close: int = _CLOSE) -> int:
    """Return approximately the smallest number above ``low`` for which ``holds`` is true; at most ``MAX_SAMPLES``."""
    while high < MAX_SAMPLES and not holds(high):
        low, high = high, min(MAX_SAMPLES, math.ceil(high * _STEP))
    while high - low > max(1, high // close):
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
