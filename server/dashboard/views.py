"""View models of the pages: plain values made from the services' values; pure, so they are tested without a browser."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode

from server.app.overall import NEAR_RATIO
from server.fleet.fleet import Device
from server.fleet.liveness import is_reachable, is_silent
from server.registry.events import LoggedEvent
from server.wording import duration
from wire.answers import AnswerRecord
from wire.codec import Json, from_document
from wire.errors import MessageError
from wire.messages import DeviceState, Severity, UpdatePhase, UpdateStatus

T = TypeVar("T")
_SECOND_MS = 1000
_LAST_MS = 253_402_300_799_999  # the end of the year 9999


class Tone(StrEnum):
    """The colour of a state; the word beside it has the same meaning."""

    CALM = "calm"
    GOOD = "good"
    BUSY = "busy"
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Status:
    """A word and its tone."""

    text: str
    tone: Tone = Tone.CALM


@dataclass(frozen=True, slots=True)
class PageLink:
    """A text that leads to ``href``, "" for nowhere."""

    text: str
    href: str = ""

    @classmethod
    def to(cls, text: str, path: str, **query: str) -> PageLink:
        """Return the link to ``path`` with a query."""
        return cls(text, f"{path}?{urlencode(query)}" if query else path)


_STATES = {
    DeviceState.INIT: Status("no release yet", Tone.BUSY),
    DeviceState.READY: Status("ready", Tone.GOOD),
    DeviceState.DEGRADED: Status("degraded", Tone.WARN),
    DeviceState.UPDATING: Status("updating", Tone.BUSY),
    DeviceState.DISCONNECTED: Status("disconnected", Tone.CALM),
    DeviceState.LOST: Status("lost", Tone.BAD),
}
_PHASE_TONES = {
    UpdatePhase.IDLE: Tone.CALM,
    UpdatePhase.COMMITTED: Tone.GOOD,
    UpdatePhase.DEFERRED: Tone.WARN,
    UpdatePhase.ROLLED_BACK: Tone.WARN,
    UpdatePhase.REFUSED: Tone.BAD,
}
_SEVERITIES = {Severity.INFO: Tone.CALM, Severity.WARNING: Tone.WARN, Severity.ERROR: Tone.BAD}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRow:
    """One row of the fleet's table. ``evidence_ratio``: evidence as a share of its threshold, None before any.

    ``there``: it has connected, and it is neither away nor silent.
    """

    device: str
    site: str
    state: Status
    release: str
    wanted: str
    phase: Status
    seen: str
    evidence_ratio: float | None
    evidence: Status
    there: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    """One row of the log."""

    id: int
    at: str
    severity: Status
    device: str
    what: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRow:
    """One answer of a device."""

    id: str
    at: str
    answer: str
    confidence: str
    supported: Status
    release: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """What a device used in one day."""

    day: str
    sent: str
    received: str
    written: str


@dataclass(frozen=True, slots=True)
class Cut(Generic[T]):
    """The first rows of a list, and how many more it has."""

    rows: tuple[T, ...]
    more: int = 0

    @classmethod
    def of(cls, rows: Sequence[T], limit: int) -> Cut[T]:
        """Return the first ``limit`` of ``rows``."""
        return cls(tuple(rows[:limit]), max(len(rows) - limit, 0))


def ago(at_ms: int, now_ms: int) -> str:
    """Return how long ago ``at_ms`` was, in words; "never" for 0."""
    if at_ms <= 0:
        return "never"
    passed_ms = max(now_ms - at_ms, 0)
    return "just now" if passed_ms < 10 * _SECOND_MS else f"{duration(passed_ms)} ago"


def losses_text(newest_day: Mapping[str, Any], late: Mapping[str, Any]) -> str:
    """Return what a device's spool dropped and merged, and what came late, in words.

    ``newest_day``: its row of ``device_days``, or none; ``late``: ``late_windows``.
    """
    dropped = ", ".join(f"{stream or 'other'} {records:,}" for stream, records in newest_day.get("dropped", {}).items())
    parts = [f"Dropped by its full spool so far: {dropped}." if dropped else "Its spool has dropped nothing."]
    if newest_day.get("merged"):
        parts.append(f"Drift reports merged there: {newest_day['merged']:,}.")
    if late["windows"]:
        waited = ago(1, int(late["delay_ms"]) + 1).removesuffix(" ago")
        merged = f"; {late['merged']:,} stand for several" if late["merged"] else ""
        parts.append(
            f"Windows that came late: {late['windows']:,} with {late['n']:,} inferences, up to {waited}{merged}."
        )
    return " ".join(parts)


def clock_time(at_ms: int) -> str:
    """Return ``at_ms`` as a UTC date and time; "" for 0, and for a time of a device that no calendar has."""
    known = 0 < at_ms <= _LAST_MS
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S") if known else ""


def clock_off(off_ms: int) -> str:
    """Return how far a device's clock is off, in words."""
    return f"{duration(abs(off_ms))} {'ahead' if off_ms > 0 else 'behind'}: set it"


def evidence_share(log_value: float | None, log_threshold: float) -> float | None:
    """Return the log of the evidence as a share of the log of its threshold, 0 and above; None without evidence.

    Logarithmic, because evidence grows by factors: under constant drift the share grows linearly with the windows.
    """
    if log_value is None or log_threshold <= 0:
        return None
    return max(log_value, 0.0) / log_threshold


def evidence_status(ratio: float | None, *, flagged: bool = False) -> Status:
    """Return the status of a share of the threshold."""
    if ratio is None:
        return Status("no data yet", Tone.CALM)
    percent = f"{100 * min(ratio, 9.99):.0f} %"
    if flagged:
        return Status(f"drift, {percent}", Tone.BAD)
    return Status(percent, Tone.WARN if ratio >= NEAR_RATIO else Tone.GOOD)


def state_status(device: Device, now_ms: int, silent_s: float) -> Status:
    """Return the status of a device; a silent device's last state is not shown as its current one."""
    if device.last_seen_ms <= 0:
        return Status("never connected", Tone.WARN)
    if is_silent(device, now_ms, silent_s):
        return Status(f"silent, was {_STATES[device.state].text}", Tone.WARN)
    if device.answers_nothing and device.state is DeviceState.DEGRADED:
        return Status("answers nothing", Tone.BAD)
    return _STATES[device.state]


def phase_status(update: UpdateStatus | None) -> Status:
    """Return the status of an update, with its progress or the reason of its failure."""
    if update is None or update.phase is None:
        return Status("unknown" if update else "no report yet", Tone.CALM)
    text = update.phase.value.replace("_", " ")
    if update.phase is UpdatePhase.DOWNLOADING and update.total_bytes > 0:
        text += f" {100 * update.done_bytes // update.total_bytes} %"
    if update.phase in {UpdatePhase.REFUSED, UpdatePhase.ROLLED_BACK} and update.code:
        text += f": {update.code.replace('_', ' ')}"
    return Status(text, _PHASE_TONES.get(update.phase, Tone.BUSY))


def device_row(
    device: Device, now_ms: int, ratio: float | None, *, flagged: bool, silent_s: float = 7_200.0
) -> DeviceRow:
    """Return one row of the fleet's table."""
    there, evidence = is_reachable(device, now_ms, silent_s), evidence_status(ratio, flagged=flagged)
    if not there and ratio is not None and not flagged:
        evidence = Status(f"{evidence.text} at its last report", Tone.WARN if evidence.tone is Tone.WARN else Tone.CALM)
    return DeviceRow(
        device=device.device,
        site=device.site,
        state=state_status(device, now_ms, silent_s),
        release=device.release or "none",
        wanted=device.desired_release,
        phase=phase_status(device.reported.update if device.reported else None),
        seen=ago(device.last_seen_ms, now_ms),
        evidence_ratio=ratio,
        evidence=evidence,
        there=there,
    )


def answer_rows(batches: Sequence[Sequence[Mapping[str, Json]]], most: int) -> tuple[AnswerRow, ...]:
    """Return the newest ``most`` answers, newest first, each input once; ``batches`` are as sent, newest first.

    A row that is no answer is left out: the device is another program.
    """
    found: dict[str, AnswerRecord] = {}
    for document in (row for batch in batches for row in reversed(batch)):
        with contextlib.suppress(MessageError):
            record = from_document(AnswerRecord, document)
            found.setdefault(record.id, record)
    return tuple(_answer_row(record) for record in list(found.values())[:most])


def _answer_text(record: AnswerRecord) -> str:
    if record.error:
        return f"none: {record.error.replace('_', ' ')}"
    scores = record.scores or {}
    if record.labels is not None:
        sure = (f"{name} {scores[name]:.0%}" if name in scores else name for name in record.labels)
        return ", ".join(sure) or "no label applies"
    if record.boxes is not None:
        best = max((score for box in record.boxes if isinstance(score := box.get("score"), int | float)), default=None)
        counted = ", ".join(f"{count:.0f} {name}" for name, count in record.values.items() if count)
        return (counted + (f"; surest {best:.0%}" if counted and best is not None else "")) or "no box"
    if record.anomalous is not None:
        return f"{record.label}: {', '.join(f'{name} {value:.4g}' for name, value in scores.items())}"
    if record.events:
        return ", ".join(f"{event.get('label', '?')} {event.get('state', '')}".strip() for event in record.events)
    values = ", ".join(f"{name} {value:.6g}" for name, value in record.values.items())
    return record.label or values or "none: no label"


def _answer_row(record: AnswerRecord) -> AnswerRow:
    supported = {
        True: Status("yes", Tone.GOOD),
        False: Status("no: unlike the training data", Tone.WARN),
        None: Status("this release can't tell"),
    }
    return AnswerRow(
        id=record.id,
        at=clock_time(record.at_ms),
        answer=_answer_text(record),
        confidence="" if record.confidence is None else f"{100 * record.confidence:.0f} %",
        supported=Status("") if record.error else supported[record.supported],
        release=record.release,
    )


def event_row(event: LoggedEvent) -> EventRow:
    """Return one row of the log."""
    code = event.code.replace("_", " ")
    what = event.kind if not code or code == event.kind else f"{event.kind}: {code}"
    severity = Status(event.severity.value, _SEVERITIES[event.severity])
    return EventRow(
        id=event.id,
        at=clock_time(event.at_ms),
        severity=severity,
        device=event.device or "",
        what=what,
        text=event.text,
    )
