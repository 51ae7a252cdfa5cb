"""Events in long recordings: matching them one to one, and exact bounds of rates. Pure.

A detection is a point in time with a label. It meets an event of the same recording and label if it lies within the
event, widened by a tolerance on both sides; each event is met once, and each detection meets one event. The rest are
missed events and false accepts: a second detection of one event is a false accept, and an event that is detected under
another label is missed and a false accept.

Sources: A. Mesaros, T. Heittola, T. Virtanen, Metrics for Polyphonic Sound Event Detection, Applied Sciences 6 (2016)
162, section 3.2 (event-based counts with a collar); F. Glover, Maximum matching in a convex bipartite graph, Naval
Research Logistics Quarterly 14 (1967) 313-316; F. Garwood, Fiducial limits for the Poisson distribution, Biometrika 28
(1936) 437-442.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
_MOST_TIMES = 4096
"""As many times the recorded hours are not asked for: nobody records them."""
_CLOSE_H, _CLOSE = 0.1, 1e-6


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Spans:
    """K events: ``recordings`` and ``labels`` int64 (K,), ``starts_s`` and ``ends_s`` float64 (K,)."""

    recordings: Integers
    labels: Integers
    starts_s: Floats
    ends_s: Floats

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.labels)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Points:
    """M detections: ``recordings`` and ``labels`` int64 (M,), ``at_s`` float64 (M,)."""

    recordings: Integers
    labels: Integers
    at_s: Floats

    def __len__(self) -> int:
        """Return the number of detections."""
        return len(self.labels)

    def take(self, rows: NDArray[np.bool_]) -> Points:
        """Return the detections of a bool mask (M,)."""
        return Points(recordings=self.recordings[rows], labels=self.labels[rows], at_s=self.at_s[rows])

    def spans(self, tolerance_s: float) -> Spans:
        """Return each detection as an event of twice the tolerance, to compare the detections of two models."""
        return Spans(
            recordings=self.recordings, labels=self.labels, starts_s=self.at_s - tolerance_s,
            ends_s=self.at_s + tolerance_s,
        )  # fmt: skip


def matched(events: Spans, found: Points) -> Integers:
    """Return for each detection the event that it meets, int64 (M,), -1: none; as many are met as can be.

    ``events`` are already widened by the tolerance. In the order of time, each detection takes that of the events open
    to it that ends first (Glover).
    """
    of_event, of_found = defaultdict(list), defaultdict(list)
    for number, key in enumerate(zip(events.recordings.tolist(), events.labels.tolist(), strict=True)):
        of_event[key].append(number)
    for number, key in enumerate(zip(found.recordings.tolist(), found.labels.tolist(), strict=True)):
        of_found[key].append(number)
    meets = np.full(len(found), -1, np.int64)
    for key, detections in of_found.items():
        left = sorted(of_event[key], key=lambda number: (events.ends_s[number], number))
        for detection in sorted(detections, key=lambda number: found.at_s[number]):
            at_s = found.at_s[detection]
            first = next((n for n in left if events.starts_s[n] <= at_s <= events.ends_s[n]), None)
            if first is not None:
                left.remove(first)
                meets[detection] = first
    return meets


def rate_bounds(count: float, hours: float, confidence: float) -> tuple[float, float]:
    """Return the lower and the upper bound of a Poisson rate an hour, each exact and one-sided at ``confidence``.

    The rate is that of ``count`` events in the unit of ``hours``; a count that was divided need not be whole.

    Source: Garwood 1936, by quantiles of the chi-squared distribution.
    """
    low = stats.chi2.ppf(1 - confidence, 2 * count) / 2 if count else 0.0
    return float(low) / hours, float(stats.chi2.ppf(confidence, 2 * count + 2)) / 2 / hours


def increase_upper(new: int, gone: int, hours: float, confidence: float) -> float:
    """Return the upper bound of the increase of a rate an hour, of which ``new`` and ``gone`` events are not shared.

    Both counts are Poisson, and each is bounded at half the risk: what both models detect cancels out, and the bound
    holds whatever depends on what (Bonferroni), so its risk is at most 1 - ``confidence``.
    """
    half = 1 - (1 - confidence) / 2
    return rate_bounds(new, hours, half)[1] - rate_bounds(gone, hours, half)[0]


def still_needed(present: float, decides: Callable[[float], bool]) -> int:
    """Return about how many more whole hours (or events) decide, at least one; 0: not even 4096 times as many would.

    ``present``: how many there are; ``decides``: whether so many times as many, at the same rates, do.
    """
    low, high = 1.0, 2.0
    while not decides(high):
        if high >= _MOST_TIMES:
            return 0
        low, high = high, 2 * high
    while (high - low) * present > _CLOSE_H and high - low > _CLOSE:
        middle = (low + high) / 2
        low, high = (low, middle) if decides(middle) else (middle, high)
    return max(1, math.ceil((high - 1) * present - _CLOSE))
