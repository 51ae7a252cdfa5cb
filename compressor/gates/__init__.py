"""Gates: the conditions that a candidate must meet before it may be signed. Pure; fail closed.

Decides PASS, FAIL or INCONCLUSIVE (needs n more labelled samples) from measurements made elsewhere. A missing
measurement fails. Does not measure, and reads no file or clock.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

from compressor.gates.evidence import Evidence, Gate, GateResult, Verdict, missing, more, points, worst
from compressor.gates.metrics import MetricDrop
from compressor.statistics.bounds import MetricEvidence
from compressor.statistics.paired import Paired, drop_lower, drop_upper, holm, p_value, proportion_bounds, wilson
from compressor.statistics.power import POWER, samples_for, samples_still_needed

__all__ = [
    "CONFIDENCE", "AccuracyDrop", "AllOf", "Evidence", "Figure", "FlipRatio", "Gate", "GateResult", "Judgement",
    "MetricDrop", "MetricEvidence", "Superiority", "Verdict", "WorstSliceDrop",
]  # fmt: skip

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class AccuracyFloor:
    """The one-sided lower bound of the accuracy is at least ``floor`` (0..1).

    Decides by the exact (Clopper-Pearson) bound of one proportion. Does not compare with a baseline: that is
    ``AccuracyDrop``, which is paired and much sharper.

    Source: C. J. Clopper, E. S. Pearson, Biometrika 26 (1934) 404-413; the number of samples by the normal
    approximation, J. L. Fleiss, Statistical Methods for Rates and Proportions, 2nd edition (1981), section 2.2.
    """

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
        return GateResult(
            name=self.name,
            verdict=verdict,
            value=value,
            bound=low,
            limit=self.floor,
            n=counts.n,
            text=text,
            needs=needs,
        )


def samples_above(accuracy: float, gate: AccuracyFloor) -> int:
    """Return about how many samples show that a true ``accuracy`` (0..1) exceeds the floor; 0: no number does."""
    floor, gap = gate.floor, accuracy - gate.floor
    if gap <= 0:
        return 0
    sure, often = (float(stats.norm.ppf(share)) for share in (gate.confidence, POWER))
    spread = sure * math.sqrt(floor * (1 - floor)) + often * math.sqrt(accuracy * (1 - accuracy))
    exact = 1 / gap  # the continuity correction of an exact bound
    return math.ceil((spread / gap) ** 2 + exact)


@dataclass(frozen=True, slots=True)
class AccuracyDrop:
    """Paired non-inferiority: the upper bound of the drop in accuracy is at most ``margin`` (0..1)."""

    margin: float
    confidence: float = CONFIDENCE
    name: str = "accuracy_drop"

    def judge(self, evidence: Evidence) -> GateResult:
        """Return PASS when shown, FAIL when rejected or when enough samples still show a drop above the margin."""
        counts = evidence.accuracy
        if counts is None or not counts.n:
            return missing(self.name, self.margin, evidence.unknown)
        bound = drop_upper(counts, self.confidence)
        verdict, needs = _three(counts, bound, self.margin, self.confidence)
        text = (
            f"drop {points(counts.drop)}, at most {points(bound)} with {self.confidence:.0%} confidence, "
            f"allowed {points(self.margin)} ({counts.lost} lost, {counts.won} won of {counts.n}){more(needs)}"
            f"{_planned(counts, self)}"
        )
        return GateResult(
            name=self.name,
            verdict=verdict,
            value=counts.drop,
            bound=bound,
            limit=self.margin,
            n=counts.n,
            text=text,
            needs=needs,
        )


def _planned(counts: Paired, gate: AccuracyDrop) -> str:
    planned = samples_for(gate.margin, counts.discordance, confidence=gate.confidence)
    if not planned:
        return ""
    return f"; {planned} samples show an equal model with {POWER:.0%} power at {points(counts.discordance)} discordance"


@dataclass(frozen=True, slots=True)
class WorstSliceDrop:
    """Non-inferiority of every slice (or class) at ``margin``, p-values adjusted by Holm over the slices.

    The reported bound is that of the worst slice at the Bonferroni level, so that it is never smaller than what Holm's
    procedure tests.
    """

    margin: float
    confidence: float = CONFIDENCE
    by_class: bool = False

    def judge(self, evidence: Evidence) -> GateResult:
        """Return the verdict of the slice farthest from passing."""
        kind = "class" if self.by_class else "slice"
        groups = evidence.classes if self.by_class else evidence.slices
        slices = {name: counts for name, counts in groups.items() if counts.n}
        if not slices:
            return missing(f"worst_{kind}_drop", self.margin, evidence.unknown)
        adjusted = dict(zip(slices, holm([p_value(counts, self.margin) for counts in slices.values()]), strict=True))
        level = 1 - (1 - self.confidence) / len(slices)
        verdicts = {name: self._one(counts, adjusted[name], level) for name, counts in slices.items()}
        worst = max(slices, key=lambda name: (verdicts[name][0].rank, adjusted[name], slices[name].drop))
        verdict, needs = verdicts[worst]
        counts, bound = slices[worst], drop_upper(slices[worst], level)
        text = (
            f"{kind} {worst!r}: drop {points(counts.drop)}, at most {points(bound)}, allowed {points(self.margin)} "
            f"({counts.lost} lost, {counts.won} won of {counts.n}; {len(slices)} tested together){more(needs)}"
        )
        return GateResult(
            name=f"worst_{kind}_drop",
            verdict=verdict,
            value=counts.drop,
            bound=bound,
            limit=self.margin,
            n=counts.n,
            text=text,
            needs=needs,
        )

    def _one(self, counts: Paired, adjusted: float, level: float) -> tuple[Verdict, int]:
        if adjusted <= 1 - self.confidence:
            return Verdict.PASS, 0
        return _three(counts, 1.0, self.margin, level)


@dataclass(frozen=True, slots=True)
class Superiority:
    """The candidate is better than the baseline on the drifted samples by more than ``gain`` (0..1)."""

    gain: float = 0.0
    confidence: float = CONFIDENCE
    name: str = "superiority"

    def judge(self, evidence: Evidence) -> GateResult:
        """Return PASS when the lower bound of the gain exceeds ``gain``, FAIL when the candidate is not better."""
        counts = evidence.drifted
        if counts is None or not counts.n:
            return missing(self.name, self.gain, evidence.unknown)
        bound = -drop_upper(counts, self.confidence)
        verdict, needs = _three(counts, -bound, -self.gain, self.confidence, strict=True)
        text = (
            f"gain {points(-counts.drop)}, at least {points(bound)} with {self.confidence:.0%} confidence, "
            f"wanted more than {points(self.gain)} ({counts.won} won, {counts.lost} lost of {counts.n}){more(needs)}"
        )
        return GateResult(
            name=self.name,
            verdict=verdict,
            value=-counts.drop,
            bound=bound,
            limit=self.gain,
            n=counts.n,
            text=text,
            needs=needs,
        )


@dataclass(frozen=True, slots=True)
class FlipRatio:
    """The share of samples that compression flips; ``negative``: from right to wrong. Wilson's bounds."""

    limit: float
    confidence: float = CONFIDENCE
    negative: bool = False

    def judge(self, evidence: Evidence) -> GateResult:
        """Return PASS when the upper bound is at most ``limit``, FAIL when the share is above it."""
        name = "negative_flip_ratio" if self.negative else "flip_ratio"
        counts = evidence.compressed
        flips = counts.lost if counts and self.negative else evidence.flips
        if counts is None or flips is None or not counts.n:
            return missing(name, self.limit, evidence.unknown)
        bound = wilson(flips, counts.n, 2 * self.confidence - 1)[1]
        share = flips / counts.n
        verdict = Verdict.PASS if bound <= self.limit else Verdict.INCONCLUSIVE
        verdict = Verdict.FAIL if share > self.limit else verdict
        needs = _wilson_needs(share, counts.n, self) if verdict is Verdict.INCONCLUSIVE else 0
        text = (
            f"{flips} of {counts.n} {'got worse' if self.negative else 'changed'}: {points(share)}, "
            f"at most {points(bound)}, allowed {points(self.limit)}{more(needs)}"
        )
        return GateResult(
            name=name, verdict=verdict, value=share, bound=bound, limit=self.limit, n=counts.n, text=text, needs=needs
        )


def _wilson_needs(share: float, n: int, gate: FlipRatio) -> int:
    low, high = n, 2 * n
    level = 2 * gate.confidence - 1
    while high < n << 12 and wilson(math.ceil(share * high), high, level)[1] > gate.limit:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        passes = wilson(math.ceil(share * middle), middle, level)[1] <= gate.limit
        low, high = (low, middle) if passes else (middle, high)
    return high - n


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured figure is at most ``maximum`` and at least ``minimum``."""

    name: str
    maximum: float | None = None
    minimum: float | None = None

    def judge(self, evidence: Evidence) -> GateResult:
        """Return PASS or FAIL; a figure that is missing or not finite fails."""
        limit = self.maximum if self.maximum is not None else self.minimum
        value = evidence.figures.get(self.name)
        if value is None or not math.isfinite(value) or limit is None or not math.isfinite(limit):
            return missing(self.name, math.nan if limit is None else limit, evidence.unknown)
        above = self.maximum is not None and value > self.maximum
        below = self.minimum is not None and value < self.minimum
        verdict = Verdict.FAIL if above or below else Verdict.PASS
        allowed = " and ".join(
            f"at {word} {edge:g}"
            for word, edge in (("most", self.maximum), ("least", self.minimum))
            if edge is not None
        )
        return GateResult(
            name=self.name,
            verdict=verdict,
            value=value,
            bound=value,
            limit=limit,
            n=0,
            text=f"{value:.6g}, allowed {allowed}",
        )


@dataclass(frozen=True, slots=True)
class Judgement:
    """All gates together."""

    verdict: Verdict
    results: tuple[GateResult, ...]


@dataclass(frozen=True, slots=True)
class AllOf:
    """Passes when every gate passes; fails without gates."""

    gates: Sequence[Gate]

    def judge(self, evidence: Evidence) -> Judgement:
        """Return the worst verdict and all results, in the order of the gates."""
        results = tuple(gate.judge(evidence) for gate in self.gates)
        return Judgement(worst(result.verdict for result in results), results)


def _three(
    counts: Paired, upper: float, margin: float, confidence: float, *, strict: bool = False
) -> tuple[Verdict, int]:
    if upper < margin or (upper == margin and not strict):
        return Verdict.PASS, 0
    if drop_lower(counts, confidence) > margin:
        return Verdict.FAIL, 0
    if counts.drop >= margin:
        planned = samples_for(margin, counts.discordance, confidence=confidence)
        return (Verdict.FAIL, 0) if counts.n >= planned else (Verdict.INCONCLUSIVE, planned - counts.n)
    return Verdict.INCONCLUSIVE, samples_still_needed(counts, margin, confidence=confidence)
