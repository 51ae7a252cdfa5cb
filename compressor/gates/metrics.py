"""Gates on metrics with given bounds: AUC, ranking precision, calibration error, regression error.

Decides the verdict on a difference with its bounds. Does not measure (``bootstrap``, ``confidence_calibration`` do).
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass, replace
from typing import ClassVar

from scipy import stats

from compressor.gates.evidence import Evidence, GateResult, Verdict, missing, more, sure
from compressor.statistics.bounds import MetricEvidence
from compressor.statistics.power import MAX_SAMPLES, POWER

VALUED = ("error_increase", "rmse_increase")
ERRORS = ("mae", "rmse")
"""Names of a regression's gates: the increase of its error, and the error itself."""
WORST_SLICE = "worst_slice_error_increase"
SLICE = "slice:"
"""Prefix of the name of the evidence of one slice, in the same unit as ``error_increase``."""

LABELS = ("label_map_drop", "label_f1_drop")
"""Names of the gates of rows with several labels: the drops of mAP, and of F1 over all labels."""
DETECTION = ("detection_map_drop", "detection_f1_drop")
"""Names of a detection's gates: the drops of mAP and of F1, both at an overlap of .5."""
WORST_SLICE_MAP, WORST_CLASS_MAP = "worst_slice_map_drop", "worst_class_map_drop"
SLICE_MAP, CLASS_MAP = "map of slice:", "map of class:"
"""Prefixes of the names of their evidence."""
MIN_PICTURES, MIN_RAREST_PICTURES = 50, 10
"""Of fewer pictures, or fewer with the rarest class, the bootstrap's bound of mAP is too low."""
MIN_SAMPLES = 100
MIN_RAREST = 20
"""Fewer samples, or fewer of the rarest group, show nothing: the bootstrap interval may collapse to zero width.

The rarest group of a regression is the rows in which a model has an error at all.
"""


@dataclass(frozen=True, slots=True)
class MetricDrop:
    """The bootstrap upper bound of the loss in ``metric`` is at most ``margin``, in the metric's unit."""

    metric: str
    margin: float
    confidence: float = 0.95

    LEAST: ClassVar[tuple[int, int]] = (MIN_SAMPLES, MIN_RAREST)
    """Fewer samples, or fewer of the rarest group, are INCONCLUSIVE."""

    def judge(self, evidence: Evidence) -> GateResult:
        """Return PASS when shown, FAIL when rejected or hopeless; a bound that is missing or too weak fails."""
        found = evidence.metrics.get(self.metric)
        if found is None or not found.n or not all(math.isfinite(value) for value in astuple(found)):
            return missing(self.metric, self.margin, evidence.unknown)
        if found.confidence < self.confidence - 1e-9 or not found.lower <= found.upper:
            text = (
                f"Expected a bound at {sure(self.confidence)} confidence, got {sure(found.confidence)}: measure again"
            )
            return GateResult(
                name=self.metric,
                verdict=Verdict.FAIL,
                value=found.drop,
                bound=None,
                limit=self.margin,
                n=found.n,
                text=text,
            )
        verdict, needs, by_width = self._three(found)
        text = (
            f"worse by {found.drop:z.5g} ({found.baseline:.5g} to {found.candidate:.5g}), at most {found.upper:z.5g} "
            f"with {sure(found.confidence)} confidence, allowed {self.margin:g} (n {found.n}){more(needs)}"
        )
        return GateResult(
            name=self.metric,
            verdict=verdict,
            value=found.drop,
            bound=found.upper,
            limit=self.margin,
            n=found.n,
            text=text,
            needs=needs,
            by_width=by_width,
        )

    def _three(self, found: MetricEvidence) -> tuple[Verdict, int, int | None]:
        """Return the verdict, and ``needs`` and ``by_width`` of the result."""
        if found.lower > self.margin:
            return Verdict.FAIL, 0, None
        hopeful = found.drop < self.margin
        planned = _planned(found, self.margin - found.drop if hopeful else self.margin)
        samples, rarest = self.LEAST
        if found.n < samples or found.rarest < rarest:
            factor = max(samples / found.n, rarest / max(found.rarest, 1))
            by_width = planned if hopeful else 0  # so few don't tell how far an equal model is
            return Verdict.INCONCLUSIVE, max(math.ceil(found.n * factor), by_width) - found.n, by_width
        if found.upper <= self.margin:
            return Verdict.PASS, 0, None
        if not hopeful and found.n >= planned:
            return Verdict.FAIL, 0, None
        return Verdict.INCONCLUSIVE, max(1, planned - found.n), None


@dataclass(frozen=True, slots=True)
class ErrorCeiling:
    """The upper bound of a regression's error itself (``mae`` or ``rmse``) is at most ``limit``, in the values' unit.

    Its evidence is the increase over a model without any error.
    """

    name: str
    limit: float
    confidence: float = 0.95

    def judge(self, evidence: Evidence) -> GateResult:
        """Return PASS when shown, FAIL when rejected or hopeless, else INCONCLUSIVE with the samples needed."""
        result = MetricDrop(self.name, self.limit, self.confidence).judge(evidence)
        found = evidence.metrics.get(self.name)
        if found is None or result.bound is None:
            return result
        text = (
            f"{found.drop:.5g}, at most {found.upper:.5g} with {sure(found.confidence)} confidence, "
            f"allowed {self.limit:g} ({found.n} samples){more(result.needs)}"
        )
        return replace(result, text=text)


@dataclass(frozen=True, slots=True)
class PicturesDrop(MetricDrop):
    """A ``MetricDrop`` over pictures with several boxes or labels, of which fewer suffice."""

    LEAST: ClassVar[tuple[int, int]] = (MIN_PICTURES, MIN_RAREST_PICTURES)


@dataclass(frozen=True, slots=True)
class WorstSliceIncrease:
    """The error of no slice increased by more than ``margin``, each at the Bonferroni level over the slices."""

    margin: float
    confidence: float = 0.95

    NAME: ClassVar[str] = WORST_SLICE
    PREFIX: ClassVar[str] = SLICE
    KIND: ClassVar[str] = "slice"
    GATE: ClassVar[type[MetricDrop]] = MetricDrop
    """Judges each."""

    def judge(self, evidence: Evidence) -> GateResult:
        """Return the verdict of the slice farthest from passing."""
        slices = [name for name in evidence.metrics if name.startswith(self.PREFIX)]
        if not slices:
            return missing(self.NAME, self.margin, evidence.unknown)
        level = level_of(self.confidence, len(slices))
        judged = {name: self.GATE(name, self.margin, level).judge(evidence) for name in slices}
        worst = max(slices, key=lambda name: (judged[name].verdict.rank, _distance(judged[name])))
        named = f"{self.KIND} {worst.removeprefix(self.PREFIX)!r}"
        text = f"{named} ({len(slices)} tested together): {judged[worst].text}"
        return replace(judged[worst], name=self.NAME, text=text)


@dataclass(frozen=True, slots=True)
class WorstSliceMapDrop(WorstSliceIncrease):
    """The mAP of no slice dropped by more than ``margin``."""

    NAME: ClassVar[str] = WORST_SLICE_MAP
    PREFIX: ClassVar[str] = SLICE_MAP
    GATE: ClassVar[type[MetricDrop]] = PicturesDrop


@dataclass(frozen=True, slots=True)
class WorstClassMapDrop(WorstSliceMapDrop):
    """The average precision of no class dropped by more than ``margin``."""

    NAME: ClassVar[str] = WORST_CLASS_MAP
    PREFIX: ClassVar[str] = CLASS_MAP
    KIND: ClassVar[str] = "class"


def _distance(result: GateResult) -> float:
    return math.inf if result.bound is None else result.bound


def level_of(confidence: float, slices: int) -> float:
    """Return the confidence for each of ``slices`` so that all together have ``confidence`` (Bonferroni)."""
    return 1 - (1 - confidence) / slices


def _planned(found: MetricEvidence, distance: float) -> int:
    """Return how many samples give a bound ``distance`` above the true drop with ``POWER``, from the bound's width."""
    if distance <= 0:
        return 0
    z = float(stats.norm.ppf(found.confidence))
    error = max(found.upper - found.drop, (found.upper - found.lower) / 2) / z
    return min(MAX_SAMPLES, math.ceil(found.n * ((z + float(stats.norm.ppf(POWER))) * error / distance) ** 2))
