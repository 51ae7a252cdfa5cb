"""The gate on accuracy itself: its lower bound, and not its estimate, reaches the floor. Pure; fails closed.

Decides by the exact (Clopper-Pearson) bound of one proportion. Does not compare with a baseline: that is
``accuracy_drop``, which is paired and much sharper.

Source: C. J. Clopper, E. S. Pearson, Biometrika 26 (1934) 404-413; the number of samples by the normal approximation,
J. L. Fleiss, Statistical Methods for Rates and Proportions, 2nd edition (1981), section 2.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import stats

from compressor.gates.evidence import Evidence, GateResult, Verdict, missing, more, points
from compressor.statistics.paired import proportion_bounds
from compressor.statistics.power import POWER


@dataclass(frozen=True, slots=True)
class AccuracyFloor:
    """The one-sided lower bound of the accuracy is at least ``floor`` (0..1)."""

    floor: float
    confidence: float = 0.95
    name: str = "accuracy"

    def judge(self, evidence: Evidence) -> GateResult:
        """Return PASS when shown, FAIL when measured below the floor, else INCONCLUSIVE with the samples needed."""
        value, counts = evidence.figures.get(self.name), evidence.accuracy
        if value is None or not math.isfinite(value) or counts is None or not counts.n:
            return missing(self.name, self.floor, evidence.unknown)
        low, _ = proportion_bounds(round(value * counts.n), counts.n, self.confidence)
        if low >= self.floor:
            verdict, needs = Verdict.PASS, 0
        elif value < self.floor:
            verdict, needs = Verdict.FAIL, 0
        else:
            verdict, needs = Verdict.INCONCLUSIVE, max(0, samples_above(value, self) - counts.n)
        text = (
            f"{points(value)}, at least {points(low)} with {self.confidence:.0%} confidence, "
            f"allowed at least {points(self.floor)} ({counts.n} samples){more(needs)}"
        )
        return GateResult(self.name, verdict, value, low, self.floor, counts.n, text, needs)


def samples_above(accuracy: float, gate: AccuracyFloor) -> int:
    """Return about how many samples show that a true ``accuracy`` (0..1) is above the floor; 0: no number does."""
    floor, gap = gate.floor, accuracy - gate.floor
    if gap <= 0:
        return 0
    sure, often = (float(stats.norm.ppf(share)) for share in (gate.confidence, POWER))
    spread = sure * math.sqrt(floor * (1 - floor)) + often * math.sqrt(accuracy * (1 - accuracy))
    exact = 1 / gap  # the continuity correction of an exact bound
    return math.ceil((spread / gap) ** 2 + exact)
