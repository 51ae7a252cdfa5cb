"""Gates on events in recordings: false accepts an hour, recall an event, and what compression did to both. Pure.

They read counts from the evidence's figures, so that a certificate is judged again without the recordings. The bounds
are exact: Garwood's of a Poisson rate, Clopper and Pearson's of a proportion, the paired test's of a drop. Each passes
or fails only where its bound shows it; in between it says how many hours or events more would.

Hours and events count as independent. Refractory time and one recording for each voice or site keep them nearly so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from compressor.gates import AccuracyDrop
from compressor.gates.evidence import Evidence, GateResult, Verdict, missing, more, points, sure
from compressor.statistics.paired import proportion_bounds
from compressor.statistics.stream_events import increase_upper, rate_bounds, still_needed

HOURS = "recorded hours"
EVENTS = "labelled events"
FALSE_ACCEPTS = "false_accepts_per_hour"
FALSE_ACCEPTS_INCREASE = "false_accepts_increase"
RECALL = "event_recall"
RECALL_DROP = "event_recall_drop"
_ROUNDING = 1e-9
_FEW = 3
"""So many false accepts may be in one recording by chance."""


def rate(value: float) -> str:
    """Return a rate an hour as text."""
    return f"{value:.3g} an hour"


@dataclass(frozen=True, slots=True)
class FalseAccepts:
    """The upper bound of the false accepts an hour is at most ``limit``."""

    limit: float
    confidence: float = 0.95
    name: str = FALSE_ACCEPTS

    def judge(self, evidence: Evidence) -> GateResult:
        """Return PASS or FAIL where a bound shows it, else INCONCLUSIVE with the hours that would."""
        counts = _counts(evidence, "false_accepts", "hours")
        if counts is None or not counts[1]:
            return missing(self.name, self.limit, evidence.unknown)
        count, hours = counts
        low, high = rate_bounds(round(count), hours, self.confidence)

        def decides(times: float) -> bool:
            least, most = rate_bounds(math.ceil(count * times), hours * times, self.confidence)
            return most <= self.limit or least > self.limit

        verdict, needs = _verdict(high <= self.limit, low > self.limit, lambda: still_needed(hours, decides))
        together = evidence.figures.get("false_accepts_most", 0.0)
        burst = f"; {together:.0f} of them in one recording: not independent" if 2 * together > count > _FEW else ""
        text = (
            f"{count:.0f} in {hours:.3g} hours: {rate(count / hours)}, at most {high:.3g} with "
            f"{sure(self.confidence)} confidence, allowed {self.limit:g}{more(needs, HOURS)}{burst}"
        )
        return GateResult(
            name=self.name, verdict=verdict, value=count / hours, bound=high, limit=self.limit, n=math.ceil(hours),
            text=text, needs=needs,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class FalseAcceptsIncrease:
    """The upper bound of the increase of false accepts an hour against the baseline is at most ``limit``."""

    limit: float
    confidence: float = 0.95
    name: str = FALSE_ACCEPTS_INCREASE

    def judge(self, evidence: Evidence) -> GateResult:
        """Return PASS or FAIL where a bound shows it, else INCONCLUSIVE with the hours that would."""
        counts = _counts(evidence, "false_accepts_new", "false_accepts_gone", "hours")
        if counts is None or not counts[2]:
            return missing(self.name, self.limit, evidence.unknown)
        new, gone, hours = counts
        value, high = (new - gone) / hours, increase_upper(round(new), round(gone), hours, self.confidence)

        def shown(times: float) -> tuple[bool, bool]:
            more_new, more_gone, more_hours = math.ceil(new * times), math.floor(gone * times), hours * times
            low = -increase_upper(more_gone, more_new, more_hours, self.confidence)
            return increase_upper(more_new, more_gone, more_hours, self.confidence) <= self.limit, low > self.limit

        verdict, needs = _verdict(*shown(1.0), lambda: still_needed(hours, lambda times: any(shown(times))))
        text = (
            f"{new:.0f} new and {gone:.0f} gone in {hours:.3g} hours: {value:+.3g} an hour, at most {high:.3g} with "
            f"{sure(self.confidence)} confidence, allowed {self.limit:g}{more(needs, HOURS)}"
        )
        return GateResult(
            name=self.name, verdict=verdict, value=value, bound=high, limit=self.limit, n=math.ceil(hours), text=text,
            needs=needs,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class EventRecall:
    """The lower bound of the share of events that are detected is at least ``floor`` (0..1)."""

    floor: float
    confidence: float = 0.95
    name: str = RECALL

    def judge(self, evidence: Evidence) -> GateResult:
        """Return PASS or FAIL where a bound shows it, else INCONCLUSIVE with the events that would."""
        counts = _counts(evidence, "events_found", "events")
        if counts is None or not counts[1]:
            return missing(self.name, self.floor, evidence.unknown)
        found, events = map(round, counts)
        low, _ = proportion_bounds(found, events, self.confidence)

        def shown(times: float) -> tuple[bool, bool]:
            many = round(events * times)
            right = many * found / events
            least, _ = proportion_bounds(math.floor(right + _ROUNDING), many, self.confidence)
            _, most = proportion_bounds(math.ceil(right - _ROUNDING), many, self.confidence)
            return least >= self.floor, most < self.floor

        verdict, needs = _verdict(*shown(1.0), lambda: still_needed(events, lambda times: any(shown(times))))
        text = (
            f"{found} of {events} events detected: {points(found / events)}, at least {points(low)} with "
            f"{sure(self.confidence)} confidence, allowed at least {points(self.floor)}{more(needs, EVENTS)}"
        )
        return GateResult(
            name=self.name, verdict=verdict, value=found / events, bound=low, limit=self.floor, n=events, text=text,
            needs=needs,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class EventRecallDrop:
    """Paired non-inferiority of the recall: each event is a pair, detected by the baseline and by the candidate."""

    margin: float
    confidence: float = 0.95
    name: str = RECALL_DROP

    def judge(self, evidence: Evidence) -> GateResult:
        """Return the verdict of the paired test on events."""
        found = AccuracyDrop(self.margin, self.confidence, self.name).judge(evidence)
        return replace(found, text=found.text.replace(more(found.needs), more(found.needs, EVENTS)))


def _counts(evidence: Evidence, *names: str) -> tuple[float, ...] | None:
    """Return the figures ``names``; None if one is missing or no count."""
    found = [evidence.figures.get(name, math.nan) for name in names]
    return tuple(found) if all(math.isfinite(value) and value >= 0 for value in found) else None


def _verdict(passes: bool, fails: bool, needs: Callable[[], int]) -> tuple[Verdict, int]:  # noqa: FBT001 - what is shown
    if passes or fails:
        return (Verdict.PASS if passes else Verdict.FAIL), 0
    return Verdict.INCONCLUSIVE, needs()
