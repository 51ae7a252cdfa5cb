"""Gates on anomalies: the area under the ROC curve, and false alarms a day.

Decides the verdict on a rate with its exact bound, and on the AUC of the candidate itself. Does not count
(``statistics.false_alarms`` does).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from compressor.gates.evidence import Evidence, GateResult, Verdict, missing, more, sure
from compressor.gates.metrics import MIN_RAREST, MIN_SAMPLES, MetricDrop
from compressor.statistics import false_alarms
from compressor.statistics.bounds import MetricEvidence

AUC, AUC_DROP = "auc", "auc_drop"
RATE = "false_alarms_per_day"
_DAY_HOURS = 24
_MOST_DAYS = 3650
_LARGEST_SHARE = 0.6
"""Of a calibration split that is asked for: with more little is left to learn from and to judge by."""
_SPARE = 1.05
"""Other rows have another dispersion."""


@dataclass(frozen=True, slots=True)
class AucFloor:
    """The lower bound of the area under the ROC curve is at least ``floor``. Its evidence is the drop from 1."""

    floor: float
    confidence: float = 0.95

    def judge(self, evidence: Evidence) -> GateResult:
        """Return PASS when shown, FAIL when rejected or hopeless, else INCONCLUSIVE with the rows needed.

        Of too few sources it is INCONCLUSIVE whatever they show.
        """
        result = MetricDrop(AUC, 1 - self.floor, self.confidence).judge(evidence)
        found = evidence.metrics.get(AUC)
        if found is None or result.bound is None:
            return replace(result, limit=self.floor)
        few, lacking = _few(found)
        if few and result.verdict is Verdict.FAIL:  # where all few are ranked alike, the bootstrap has no width
            result = replace(result, verdict=Verdict.INCONCLUSIVE)
        result = replace(result, needs=lacking, by_width=0) if few else result
        text = (
            f"{1 - found.drop:.4f}, at least {1 - found.upper:z.4f} with {sure(found.confidence)} confidence, "
            f"allowed {self.floor:g} ({found.n} rows){few or more(result.needs)}"
        )
        return replace(result, value=1 - found.drop, bound=1 - found.upper, limit=self.floor, text=text)


def _few(found: MetricEvidence) -> tuple[str, int]:
    """Return the end of a text on an AUC of too few rows, each of its own source, and how many to add; "" if enough."""
    rarer, rest = MIN_RAREST - found.rarest, MIN_SAMPLES - found.n
    if rarer > 0:
        said = f"of normal and anomalous sources the rarer are {found.rarest}, and {MIN_RAREST} are needed"
        return f"; {said}: give {rarer} more", rarer
    return (f"; {MIN_SAMPLES} sources are needed: give {rest} more", rest) if rest > 0 else ("", 0)


@dataclass(frozen=True, slots=True)
class FalseAlarms:
    """The upper bound of the false alarms a day on the gate rows is at most ``most``.

    INCONCLUSIVE, with the hours to record, if the gate rows are too short to show it, or the calibration rows were for
    the threshold.
    """

    most: float
    confidence: float = 0.95

    def judge(self, evidence: Evidence) -> GateResult:
        """Return the verdict on the events that were counted."""
        figures = evidence.figures
        events, days = figures.get("false_alarms"), figures.get("normal_days")
        if events is None or not days:
            return missing(RATE, self.most, evidence.unknown)
        spread = figures.get("false_alarm_dispersion", 1.0)
        upper = false_alarms.upper(events, days, self.confidence, spread)
        lower = false_alarms.lower(events, days, self.confidence, spread)
        rate = events / days
        verdict = Verdict.PASS if upper <= self.most else Verdict.FAIL if lower > self.most else Verdict.INCONCLUSIVE
        text = (
            f"{events:.0f} in {_hours(days)} of normal inputs, {rate:.3g} a day, at most {upper:.3g} with "
            f"{sure(self.confidence)} confidence, allowed {self.most:g}"
        )
        if verdict is Verdict.INCONCLUSIVE:
            text += self._advice(rate, days, spread)
        had, wanted = figures.get("calibration_days", 0.0), figures.get("calibration_days_needed", 0.0)
        if had < wanted:
            verdict = max(verdict, Verdict.INCONCLUSIVE, key=lambda one: one.rank)
            text += (
                f"; the threshold rests on {_hours(had)} of calibration rows, too few for the rate of [alarm]: "
                f"record {_hours(wanted - had, up=True)} more for calibration"
                + _share(figures.get("calibration_share", 0.0), wanted / had if had else math.inf)
            )
        return GateResult(
            name=RATE, verdict=verdict, value=rate, bound=upper, limit=self.most, n=int(figures.get("normal_rows", 0)),
            text=text,
        )  # fmt: skip

    def _advice(self, rate: float, days: float, spread: float) -> str:
        wanted = false_alarms.days_for(rate, self.most, self.confidence, spread)
        if wanted - days > _MOST_DAYS:
            return "; the rate is too near the limit, or above it, to be shown below: lower it in [alarm]"
        return f"; record {_hours(max(wanted - days, 0.0), up=True)} more of normal inputs"


def _share(share: float, factor: float) -> str:
    """Return the way without recording: ``factor`` times the ``share`` of rows that calibrate; "" if that is none."""
    wanted = math.ceil(100 * share * factor * _SPARE) / 100 if share and math.isfinite(factor) else 1.0
    if wanted > _LARGEST_SHARE:
        return ""
    return f", or set calibration = {wanted:g} in [data] shares (it has {share:.2g})"


def _hours(days: float, *, up: bool = False) -> str:
    """Return ``days`` as text in hours; ``up``: what is to be recorded, rounded up."""
    hours = days * _DAY_HOURS
    if hours < 1:
        minutes = math.ceil(60 * hours) if up else round(60 * hours)
        return f"{minutes} minutes" if minutes < 60 else "1.0 hours"  # noqa: PLR2004 - of an hour
    return f"{math.ceil(10 * hours - 1e-9) / 10 if up else hours:,.1f} hours"
