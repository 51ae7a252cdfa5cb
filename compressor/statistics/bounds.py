"""Result of the bootstrap: how much a metric dropped, with its confidence bounds. Pure data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import NormalDist


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricEvidence:
    """How much worse a metric became, with its bootstrap bounds; larger is worse, in the metric's own unit.

    ``drop`` is the estimate, ``lower`` and ``upper`` its one-sided bounds, each at ``confidence``; ``n`` is the number
    of samples, ``rarest`` the size of the smallest group that the metric needs (positives or negatives of a class;
    rows with an error). ``baseline`` and ``candidate`` are the values of the metric for the two
    models.
    """

    drop: float = 0.0
    lower: float = 0.0
    upper: float = 0.0
    confidence: float = 0.0
    n: int = 0
    rarest: int = 0
    baseline: float = 0.0
    candidate: float = 0.0

    def at(self, confidence: float) -> MetricEvidence:
        """Return this evidence with bounds at another ``confidence``, as if the estimate were normal."""
        further = NormalDist().inv_cdf(confidence) / NormalDist().inv_cdf(self.confidence)
        lower, upper = (self.drop + further * (bound - self.drop) for bound in (self.lower, self.upper))
        return replace(self, lower=lower, upper=upper, confidence=confidence)
