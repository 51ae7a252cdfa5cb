"""Gates on anomalies: the area under the ROC curve, and false alarms a day.

Decides the verdict on a rate with its exact bound, and on the AUC of the candidate itself. Does not count
(``statistics.false_alarms`` does).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from compressor.gates.evidence import Evidence, GateResult, Verdict, missing, more, sure
from compressor.gates.metrics import MetricDrop
from compressor.statistics import false_alarms

AUC, AUC_DROP = "auc", "auc_drop"
RATE = "false_alarms_per_day"
_DAY_HOURS = 24
_MOST_DAYS = 3650


@dataclass(frozen=True, slots=True)
class AucFloor:
    """The lower bound of the area under the ROC curve is at least ``floor``. Its evidence is the drop from 1."""

    floor: float
    confidence: float = 0.95

    def judge(self, evidence: Evidence) -> GateResult:
        """Return PASS when shown, FAIL when rejected or hopeless, else INCONCLUSIVE with the rows needed."""
        result = MetricDrop(AUC, 1 - self.floor, self.confidence).judge(evidence)
        found = evidence.metrics.get(AUC)
        if found is None or result.bound is None:
            return replace(result, limit=self.floor)
        text = (
            f"{1 - found.drop:.4f}, at least {1 - found.upper:.4f} with {sure(found.confidence)} confidence, "
            f"allowed {self.floor:g} ({found.n} rows){more(result.needs)}"
        )
        return replace(result, value=1 - found.drop, bound=1 - found.upper, limit=self.floor, text=text)


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
                f"record {_hours(wanted - had)} more for calibration"
            )
        return GateResult(
            name=RATE, verdict=verdict, value=rate, bound=upper, limit=self.most, n=int(figures.get("normal_rows", 0)),
            text=text,
        )  # fmt: skip

    def _advice(self, rate: float, days: float, spread: float) -> str:
        wanted = false_alarms.days_for(rate, self.most, self.confidence, spread)
        if wanted - days > _MOST_DAYS:
            return "; the rate is too near the limit, or above it, to be shown below: lower it in [alarm]"
        return f"; record {_hours(max(wanted - days, 0.0))} more of normal inputs"


def _hours(days: float) -> str:
    hours = days * _DAY_HOURS
    return f"{math.ceil(hours):,} hours" if hours > 1 else f"{math.ceil(hours * 60)} minutes"
