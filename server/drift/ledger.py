"""Verdicts over time: opened when first found, kept while found again, closed after quiet windows.

Decides when a finding is the same as before (the same key and model; a fault is the device's, whichever model it runs)
and when it ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from server.drift.detection.attribution import UNKNOWN_CAUSE
from server.drift.health import SILENT
from server.drift.verdicts import Attributes, DriftVerdict, VerdictKind, action
from server.errors import UnknownVerdictError, VerdictKeptError
from server.ingest.faults import shortened
from server.people import MAX_NAME, MAX_WHY, SOMEBODY
from server.registry.events import EventLog, event_row
from server.store.database import Database
from server.store.events import insert_events
from server.store.monitoring import evidence as store
from server.wording import listed
from wire.codec import Json
from wire.messages import Severity

_NAMED = 6  # a line's worth of devices


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A verdict of one window with its cause in words and the release of its devices.

    ``fresh``: one of its devices sent a window in this slot. The evidence of silent devices does not change: it shows
    neither that they still drift nor that they are well. ``provisional``: the baselines of at least half of its devices
    are not complete. ``faint``: its last windows show no cause any more, as after a repair: the verdict keeps its own.
    ``not_asked``: why devices with its release are asked for no samples, "" if they are.
    """

    verdict: DriftVerdict
    cause: str
    release: str = ""
    model: str = ""
    fresh: bool = True
    provisional: bool = False
    faint: bool = False
    not_asked: str = ""

    @property
    def action(self) -> str:
        """What a person does about it."""
        return action(self.verdict.kind, self.not_asked)

    @property
    def identity(self) -> tuple[str, str]:
        """The model and key by which it is the same finding in the next window."""
        return _identity(self.verdict.kind, self.model, self.verdict.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredVerdict:
    """A verdict with its history. ``closed_ms`` is 0 while it is open; ``windows`` counts the windows with it.

    ``provisional``: when it was last found, most of its devices had no complete baseline yet. ``dismissed_ms``: when
    ``dismissed_by`` decided, for the reason ``dismissed_why``, that it holds no rollout; 0 if nobody did.
    """

    id: int
    key: str
    kind: VerdictKind
    first_window_ms: int
    last_window_ms: int
    windows: int
    opened_ms: int
    closed_ms: int
    devices: tuple[str, ...]
    attributes: Mapping[str, str]
    cause: str
    action: str
    detail: str
    release: str
    model: str
    provisional: bool = False
    dismissed_ms: int = 0
    dismissed_by: str = ""
    dismissed_why: str = ""

    @property
    def identity(self) -> tuple[str, str]:
        """The model and key by which a finding of a later window is this one."""
        return _identity(self.kind, self.model, self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedDevice:
    """One device of a ``verdict`` on ``release`` that is asked for labels.

    ``asks``: how often it was asked for samples, last at ``asked_ms`` by the name ``request``; 0 if it could not be
    asked, then ``text`` says why. Of ``audited`` labelled scenes ``wrong`` were answered wrong, as shares: the error
    rate lies between ``lower_risk`` and ``upper_risk``. ``decided_ms``: 0 before.
    """

    verdict: int
    device: str
    release: str
    asks: int = 0
    asked_ms: int = 0
    request: str = ""
    audited: int = 0
    wrong: float = 0.0
    lower_risk: float = 0.0
    upper_risk: float = 1.0
    decided_ms: int = 0
    text: str = ""

    @property
    def shown(self) -> str:
        """What its labels show, in words."""
        scenes = "1 labelled scene" if self.audited == 1 else f"{self.audited} labelled scenes"
        return f"{self.wrong:.3g} of {scenes} wrong: risk between {self.lower_risk:.0%} and {self.upper_risk:.0%}"


@dataclass(frozen=True, slots=True)
class Verdicts:
    """All verdicts. Safe to share between threads."""

    database: Database
    events: EventLog

    def open(self) -> tuple[StoredVerdict, ...]:
        """Return the verdicts that are not closed, oldest first."""
        with self.database.begin() as connection:
            return tuple(_stored(row) for row in store.open_verdicts(connection))

    def latest(self, limit: int = 50) -> tuple[StoredVerdict, ...]:
        """Return the newest ``limit`` verdicts, newest first."""
        with self.database.begin() as connection:
            return tuple(_stored(row) for row in store.latest_verdicts(connection, limit))

    def verdict(self, verdict: int) -> StoredVerdict | None:
        """Return one verdict."""
        with self.database.begin() as connection:
            row = store.one_verdict(connection, verdict)
        return None if row is None else _stored(row)

    def end(self, verdict: StoredVerdict, now_ms: int, because: str) -> None:
        """Close an open verdict that is over for another reason than quiet windows: ``because``, in words."""
        with self.database.begin() as connection:
            store.close_verdicts(connection, [verdict.id], now_ms)
            insert_events(connection, [_closed(verdict, now_ms, f"Ended after {_windows(verdict)}, {because}")])

    def dismiss(self, verdict: int, why: str, now_ms: int, *, by: str = SOMEBODY) -> StoredVerdict:
        """Let an open ``release_regression`` hold no rollout, as ``by`` decided for the reason ``why``.

        It stays open, and is shown, as long as its devices show it. Dismissing it again changes nothing.

        Raises:
            UnknownVerdictError: If there is none of that id.
            VerdictKeptError: If it holds no rollout: it is over, or of another kind; or if there is no reason.
        """
        known = self.verdict(verdict)
        if known is None:
            raise UnknownVerdictError(f"Expected the id of a verdict, got {verdict}: see fleet-server verdicts list")
        if known.kind is not VerdictKind.RELEASE_REGRESSION or known.closed_ms:
            state = "is over" if known.closed_ms else f"is a {known.kind.value}"
            raise VerdictKeptError(f"Expected an open release_regression, got verdict {verdict}, which {state}")
        why, by = shortened(why.strip(), MAX_WHY), by[:MAX_NAME]
        if not why:
            raise VerdictKeptError(f"Expected the reason why verdict {verdict} holds no rollout, got none")
        text = f"Verdict {verdict} on {known.release} was dismissed by {by}: {why}; it holds no rollout any more"
        data: dict[str, Json] = {"verdict": verdict, "release": known.release, "by": by}
        event = event_row(now_ms, "verdict", "verdict_dismissed", Severity.WARNING, text, data=data)
        with self.database.begin() as connection:
            if store.dismiss_verdict(connection, verdict, now_ms, by=by, why=why):
                insert_events(connection, [event])
        return self.verdict(verdict) or known

    def note(
        self, findings: Sequence[Finding], window_ms: int, now_ms: int, *, quiet_ms: int, silent_ms: int = 0,
        judged: bool,
    ) -> None:  # fmt: skip
        """Record the findings of the window that started at ``window_ms``.

        ``judged``: windows arrived, so it counts as one more window; ``quiet_ms``: how long a verdict stays open
        without being found; ``silent_ms``: the minimum of that while its devices send nothing.
        """
        known = {verdict.identity: verdict for verdict in self.open()}
        stale = {finding.identity for finding in findings if not finding.fresh}
        silent = {one for finding in findings if finding.verdict.detail == SILENT for one in finding.verdict.devices}
        opened: list[Finding] = []
        kept: list[dict[str, object]] = []
        for finding in findings:
            if not finding.fresh:
                continue
            older = known.pop(finding.identity, None)
            if older is None:
                opened.append(finding)
            else:
                kept.append(_kept(older, finding, window_ms, judged=judged))
        closed = [
            verdict
            for verdict in known.values()
            if window_ms - verdict.last_window_ms >= max(quiet_ms, silent_ms if verdict.identity in stale else 0)
        ]
        with self.database.begin() as connection:  # one transaction: in an outage each device has a verdict of its own
            numbers = store.insert_verdicts(connection, [_row(finding, window_ms, now_ms) for finding in opened])
            store.keep_verdicts(connection, kept)
            store.close_verdicts(connection, [verdict.id for verdict in closed], now_ms)
            events = [_opened(finding, number, now_ms) for finding, number in zip(opened, numbers, strict=True)]
            events += [_closed(one, now_ms, _ending(one, silent.issuperset(one.devices))) for one in closed]
            insert_events(connection, events)


def _identity(kind: VerdictKind, model: str, key: str) -> tuple[str, str]:
    return "" if kind is VerdictKind.DEVICE_FAULT else model, key


def _row(finding: Finding, window_ms: int, now_ms: int) -> dict[str, object]:
    verdict = finding.verdict
    return {
        "key": verdict.key, "kind": verdict.kind.value, "first_window_ms": window_ms, "last_window_ms": window_ms,
        "windows": 1, "opened_ms": now_ms, "closed_ms": 0, "devices": list(verdict.devices),
        "attributes": dict(verdict.attributes), "cause": finding.cause, "action": finding.action,
        "detail": verdict.detail, "release": finding.release, "model": finding.model,
        "provisional": finding.provisional,
    }  # fmt: skip


def _kept(older: StoredVerdict, finding: Finding, window_ms: int, *, judged: bool) -> dict[str, object]:
    return {
        "verdict": older.id, "last_window_ms": window_ms, "windows": older.windows + judged,
        "devices": sorted({*older.devices, *finding.verdict.devices}),
        "cause": older.cause if finding.faint or finding.cause == UNKNOWN_CAUSE else finding.cause,
        "provisional": finding.provisional,
    }  # fmt: skip


def _opened(finding: Finding, number: int, now_ms: int) -> dict[str, object]:
    verdict = finding.verdict
    device = verdict.devices[0] if len(verdict.devices) == 1 else None
    subject = _subject(verdict.kind, verdict.attributes, verdict.detail)
    text = f"{subject}: {listed(verdict.devices, _NAMED)}: {finding.cause}; {finding.action}"
    if finding.provisional:
        text = f"Provisional, its baseline is still collected: {text}"
    data = {"verdict": number}
    return event_row(now_ms, "verdict", verdict.kind.value, Severity.WARNING, text, device=device, data=data)


def _closed(verdict: StoredVerdict, now_ms: int, ending: str) -> dict[str, object]:
    subject = _subject(verdict.kind, tuple(verdict.attributes.items()), verdict.detail)
    text = f"{ending}: {subject}: {listed(verdict.devices, _NAMED)}: {verdict.cause}"
    device = verdict.devices[0] if len(verdict.devices) == 1 else None
    data = {"verdict": verdict.id}
    return event_row(now_ms, "verdict", "verdict_closed", Severity.INFO, text, device=device, data=data)


def _ending(verdict: StoredVerdict, silent: bool) -> str:  # noqa: FBT001 - what the last window showed
    return f"Unknown after {_windows(verdict)}, its devices are silent" if silent else f"Over after {_windows(verdict)}"


def _windows(verdict: StoredVerdict) -> str:
    return "1 window" if verdict.windows == 1 else f"{verdict.windows} windows"


def _subject(kind: VerdictKind, attributes: Attributes, detail: str) -> str:
    """Return the subject of a verdict: "site south", "cohort lens b", "release_regression of digits-2"."""
    where = ", ".join(value if name == kind.value else f"{name} {value}" for name, value in attributes)
    what = f"{kind.value} of {detail}" if kind is VerdictKind.RELEASE_REGRESSION and detail else kind.value
    return f"{what} {where}" if where else what


def _stored(row: sa.RowMapping) -> StoredVerdict:
    values: dict[str, object] = {str(key): value for key, value in row.items()}
    devices = values["devices"]
    values |= {"kind": VerdictKind(str(values["kind"])), "devices": tuple(devices if isinstance(devices, list) else ())}
    return StoredVerdict(**values)  # type: ignore[arg-type]
