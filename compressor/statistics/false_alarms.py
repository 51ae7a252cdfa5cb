"""False alarms a day: events among alarms, the threshold for a stated rate, and exact bounds of a rate. Pure.

Consecutive alarms of one source are one event. The events of independent inputs are Poisson at a rare level; where
sources differ (a scene that lies near the threshold alarms again and again), their counts vary more. So events count
divided by their dispersion, which is estimated at a level with enough of them.

A threshold holds its rate with the stated confidence: it is the lowest level from which on at most k events are seen,
and k is the largest number whose upper bound is within the rate. The true level of that rate has more events, or the
chosen level is above it; both at once has at most the risk 1 - confidence (a tolerance limit).

Source: S. S. Wilks, Determination of sample sizes for setting tolerance limits, 1941 (order statistics as limits);
M. Leadbetter, G. Lindgren, H. Rootzen, Extremes and Related Properties of Random Sequences and Processes, 1983, section
5.5 (runs of exceedances are Poisson events); P. McCullagh, J. Nelder, Generalized Linear Models, 1989, section 4.5
(dispersion by Pearson's statistic).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.statistics.stream_events import rate_bounds

DAY_S = 86_400.0
_LEVEL_EVENTS = 40
"""The level at which the dispersion is estimated has about so many events, or a tenth of all rows if that is fewer."""
_LEVEL_RATIO = 0.1
_CAUTION = 2.0
"""Of the excess over 1: in simulation (autoregressive rows, scenes) those by the plain estimate held in 92 to 97 %,
by this one in 96 % and more."""
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreSeries:
    """Scores in the order of time, one source after the other. ``starts``: the place of each source's first row.

    ``reach``: alarms of one source so many rows apart, or fewer, are one event; 1: neighbours.
    """

    scores: NDArray[np.float64]
    starts: NDArray[np.int64]
    reach: int = 1

    @classmethod
    def of(cls, scores: Floats, sources: NDArray[Any] | None, interval_s: float, gap_s: float) -> ScoreSeries:
        """Return the course of ``scores``, (N,); the rows of a source are ``interval_s`` apart, in their order."""
        owner = np.arange(len(scores)) if sources is None else np.unique(sources, return_inverse=True)[1]
        order = np.argsort(owner, kind="stable")
        new = np.flatnonzero(np.diff(owner[order], prepend=-1))
        reach = 1 + int(gap_s / interval_s + 1e-9)
        return cls(scores=np.asarray(scores, np.float64)[order], starts=new.astype(np.int64), reach=reach)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """The rows of each source."""
        return np.diff(np.append(self.starts, len(self.scores)))

    def events(self, level: float) -> NDArray[np.int64]:
        """Return the number of events of each source, of scores above ``level``."""
        alarms = np.flatnonzero(self.scores > level)
        owner = np.searchsorted(self.starts, alarms, side="right") - 1
        apart = np.diff(alarms, prepend=-(self.reach + 1)) > self.reach
        first = apart | (np.diff(owner, prepend=-1) != 0)
        return np.bincount(owner[first], minlength=len(self.starts)).astype(np.int64)

    def level_of(self, most: int) -> float:
        """Return the lowest level from which on no level has more than ``most`` events; -inf if none has more."""
        order = np.argsort(-self.scores, kind="stable")
        owner = np.searchsorted(self.starts, np.arange(len(self.scores)), side="right") - 1
        alarm = np.zeros(len(self.scores), dtype=bool)
        events = 0
        for place, row in enumerate(order.tolist()):
            low = max(int(self.starts[owner[row]]), row - self.reach)
            end = self.starts[owner[row] + 1] if owner[row] + 1 < len(self.starts) else len(self.scores)
            before, after = alarm[low:row], alarm[row + 1 : min(int(end), row + 1 + self.reach)]
            left, right = bool(before.any()), bool(after.any())
            joined = left and right and self._near(before, after)
            events += 0 if joined else 1 - left - right
            alarm[row] = True
            tied = place + 1 < len(order) and self.scores[order[place + 1]] == self.scores[row]
            if events > most and not tied:
                return float(self.scores[row])
        return -math.inf

    def _near(self, before: NDArray[np.bool_], after: NDArray[np.bool_]) -> bool:
        """Return whether the nearest alarms on both sides of a row are one event already."""
        return int(np.argmax(before[::-1])) + int(np.argmax(after)) + 2 <= self.reach

    def dispersion(self) -> float:
        """Return how much more the events of sources vary than independent ones: variance by mean, at least 1.

        The estimate of few events is uncertain, and its excess over 1 is doubled.
        """
        sizes = self.sizes
        if len(sizes) < 2 or sizes.max() == 1:  # noqa: PLR2004 - one source has no variance
            return 1.0
        wanted = max(1, min(_LEVEL_EVENTS, int(_LEVEL_RATIO * len(self.scores))))
        counts = self.events(self.level_of(wanted - 1)).astype(np.float64)
        expected = counts.sum() * sizes / sizes.sum()
        if not counts.sum():
            return 1.0
        found = float(((counts - expected) ** 2 / expected).sum() / (len(sizes) - 1))
        return 1 + _CAUTION * max(0.0, found - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A level, and what it rests on: ``days`` of normal rows of the ``needed`` ones, and the ``events`` allowed there.

    ``level``: of fewer days than needed the largest score, of which nothing is known but that no row was above it.
    """

    level: float
    days: float
    needed: float
    events: int
    dispersion: float

    @property
    def holds(self) -> bool:
        """Whether the rows were enough for the rate."""
        return self.days >= self.needed


def upper(events: float, days: float, confidence: float, dispersion: float = 1.0) -> float:
    """Return the upper bound of the events a day, of so many ``events`` in ``days``."""
    return dispersion * rate_bounds(events / dispersion, days, confidence)[1]


def lower(events: float, days: float, confidence: float, dispersion: float = 1.0) -> float:
    """Return the lower bound of the events a day."""
    return dispersion * rate_bounds(events / dispersion, days, confidence)[0]


def days_for(rate: float, limit: float, confidence: float, dispersion: float = 1.0) -> float:
    """Return the days after which a true ``rate`` of events a day is shown to be below ``limit``; inf if it is not."""
    if rate >= limit:
        return math.inf
    low = high = dispersion * -math.log(1 - confidence) / limit
    while upper(rate * high, high, confidence, dispersion) > limit:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if upper(rate * middle, middle, confidence, dispersion) > limit else (low, middle)
    return high


def threshold(course: ScoreSeries, per_day: float, interval_s: float, confidence: float) -> Threshold:
    """Return the level with at most ``per_day`` false alarms, with ``confidence``, from normal rows.

    Rows are ``interval_s`` apart; ``per_day`` and both others are above 0.
    """
    days, spread = len(course.scores) * interval_s / DAY_S, course.dispersion()
    needed = spread * -math.log(1 - confidence) / per_day
    if days < needed:
        return Threshold(level=float(course.scores.max()), days=days, needed=needed, events=0, dispersion=spread)
    most = 0
    while upper(most + 1, days, confidence, spread) <= per_day and most < len(course.scores):
        most += 1
    level = course.level_of(most)
    level = level if math.isfinite(level) else float(course.scores.min())
    return Threshold(level=level, days=days, needed=needed, events=most, dispersion=spread)
