"""Verdicts over time: opened when first found, kept while found again, closed after quiet windows.

Decides when a finding is the same as before (the same key and model; a fault is the device's, whichever model it runs)
and when it ended. Each window is grouped by what alarms in it, so one drift may be found as ``fleet`` in one window and
as ``site`` in the next. It stays one verdict: a finding about the same devices, model and streams as an open verdict
that is found no more takes that over (``_Regrouped``). That decides how an alarm is named, never whether there is one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import sqlalchemy as sa

from server.access.audit_log import record_act
from server.drift.detection.attribution import UNKNOWN_CAUSE
from server.drift.health import SILENT
from server.drift.verdicts import GROUPS, Attributes, DriftVerdict, VerdictKind, action
from server.errors import UnknownVerdictError, VerdictKeptError
from server.ingest.faults import said_text
from server.people import MAX_NAME, MAX_WHY, SOMEBODY, By, actor_of
from server.registry.events import EventLog, event_row
from server.store.database import Database
from server.store.events import insert_events
from server.store.lists import drift as lists
from server.store.lists.paging import Page
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
    ``not_asked``: why devices with its release are asked for no samples, "" if they are. ``streams``: those that have
    most of its evidence.
    """

    verdict: DriftVerdict
    cause: str
    release: str = ""
    model: str = ""
    fresh: bool = True
    provisional: bool = False
    faint: bool = False
    not_asked: str = ""
    streams: tuple[str, ...] = ()

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
    ``streams``: those that have most of its evidence. ``part_of``: the verdict of the same drift in which it went on, 0
    for none.
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
    streams: tuple[str, ...] = ()
    part_of: int = 0

    @property
    def identity(self) -> tuple[str, str]:
        """The model and key by which a finding of a later window is this one."""
        return _identity(self.kind, self.model, self.key)

    def is_of(self, devices: Collection[str]) -> bool:
        """Return whether it tells of ``devices`` alone: all that it names are among them.

        One on a release or on the whole fleet tells of more than the devices that show it.
        """
        wider = self.kind in {VerdictKind.RELEASE_REGRESSION, VerdictKind.FLEET}
        return not wider and bool(self.devices) and all(device in devices for device in self.devices)


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

    def open(self, kind: VerdictKind | None = None, release: str = "") -> tuple[StoredVerdict, ...]:
        """Return the verdicts that are not closed, oldest first; of a ``kind``, and on a ``release``, "" for any."""
        with self.database.begin() as connection:
            return tuple(_stored(row) for row in store.open_verdicts(connection, kind or "", release))

    def latest(self, limit: int = 50) -> tuple[StoredVerdict, ...]:
        """Return the newest ``limit`` verdicts, newest first."""
        with self.database.begin() as connection:
            return tuple(_stored(row) for row in store.latest_verdicts(connection, limit))

    def page(  # noqa: PLR0913 - a filter and a place in the list
        self, *, is_open: bool | None = None, kind: str = "", model: str = "", release: str = "", device: str = "",
        limit: int = 50, cursor: str | None = None,
    ) -> Page[StoredVerdict]:  # fmt: skip
        """Return a page of verdicts, newest first; ``is_open``: only those that are, or are not; "" for any.

        Raises:
            CursorRefusedError: If ``cursor`` is not the ``next`` of such a page.
        """
        with self.database.begin() as connection:
            return lists.verdict_page(
                connection, is_open=is_open, kind=kind, model=model, release=release, device=device, limit=limit,
                cursor=cursor,
            ).of(_stored)  # fmt: skip

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

    def dismiss(self, verdict: int, why: str, now_ms: int, *, by: By = SOMEBODY) -> StoredVerdict:
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
        why, who = said_text(why.strip(), "a reason", MAX_WHY), actor_of(by).name[:MAX_NAME]
        if not why:
            raise VerdictKeptError(f"Expected the reason why verdict {verdict} holds no rollout, got none")
        text = f"Verdict {verdict} on {known.release} was dismissed by {who}: {why}; it holds no rollout any more"
        data: dict[str, Json] = {"verdict": verdict, "release": known.release, "by": who}
        event = event_row(now_ms, "verdict", "verdict_dismissed", Severity.WARNING, text, data=data)
        with self.database.begin() as connection:
            if store.dismiss_verdict(connection, verdict, now_ms, by=who, why=why):
                insert_events(connection, [event])
                record_act(connection, by, "verdict.dismiss", str(verdict), now_ms, data={**data, "why": why})
        return self.verdict(verdict) or known

    def note(
        self, findings: Sequence[Finding], window_ms: int, now_ms: int, *, quiet_ms: int, silent_ms: int = 0,
        judged: bool,
    ) -> list[tuple[int, Finding]]:  # fmt: skip
        """Record the findings of the window that started at ``window_ms``; return those that opened verdicts, by id.

        ``judged``: windows arrived, so it counts as one more window; ``quiet_ms``: how long a verdict stays open
        without being found; ``silent_ms``: the minimum of that while its devices send nothing.
        """
        known = {verdict.identity: verdict for verdict in self.open()}
        stale = {finding.identity for finding in findings if not finding.fresh}
        silent = {one for finding in findings if finding.verdict.detail == SILENT for one in finding.verdict.devices}
        fresh = [finding for finding in findings if finding.fresh]
        again: _Kept = []
        new: list[Finding] = []
        for finding in fresh:
            older = known.pop(finding.identity, None)
            if older is None:
                new.append(finding)
            else:
                again.append((older, finding))
        closed = [
            verdict
            for verdict in known.values()
            if window_ms - verdict.last_window_ms >= max(quiet_ms, silent_ms if verdict.identity in stale else 0)
        ]
        regrouped = _Regrouped.of(
            fresh=new,
            again=again,
            lost=[verdict for verdict in known.values() if verdict.identity not in stale],
            ending={verdict.id for verdict in closed},
        )
        opened, found = regrouped.opened, again + regrouped.taken
        kept = [_kept(older, finding, window_ms, judged=judged) for older, finding in again]
        kept += [_taken(older, finding, window_ms, judged=judged) for older, finding in regrouped.taken]
        with self.database.begin() as connection:  # one transaction: in an outage each device has a verdict of its own
            numbers = store.insert_verdicts(connection, [_row(finding, window_ms, now_ms) for finding in opened])
            store.keep_verdicts(connection, kept)
            store.stay_verdicts(connection, [verdict.id for verdict in regrouped.stays], window_ms)
            parts = regrouped.parts([(older.id, one) for older, one in found] + list(zip(numbers, opened, strict=True)))
            store.join_verdicts(connection, [(part.id, whole) for part, whole in parts])
            goes_on = {one.id for one in regrouped.stays} | {one.id for one, _ in parts + regrouped.taken}
            closed = [verdict for verdict in closed if verdict.id not in goes_on]
            store.close_verdicts(connection, [one.id for one in [*closed, *(part for part, _ in parts)]], now_ms)
            events = [_opened(finding, number, now_ms) for finding, number in zip(opened, numbers, strict=True)]
            events += [_renamed(older, finding, now_ms) for older, finding in regrouped.taken]
            events += [_closed(one, now_ms, f"Part of verdict {whole} after {_windows(one)}") for one, whole in parts]
            events += [_closed(one, now_ms, _ending(one, silent.issuperset(one.devices))) for one in closed]
            insert_events(connection, events)
        return list(zip(numbers, opened, strict=True))


_Kept: TypeAlias = list[tuple[StoredVerdict, Finding]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Regrouped:
    """What becomes of findings without a verdict of their own, and of open verdicts that were not found again.

    ``opened``: findings that open a verdict; ``taken``: verdicts that go on as another finding; ``stays``: those of
    which half of the devices are still found, each by itself; ``rest``: the others that were not found.
    """

    opened: list[Finding]
    taken: _Kept
    stays: list[StoredVerdict]
    rest: list[StoredVerdict]

    @classmethod
    def of(
        cls, *, fresh: Sequence[Finding], again: _Kept, lost: Sequence[StoredVerdict], ending: Collection[int]
    ) -> _Regrouped:
        """Let ``fresh`` findings take over ``lost`` verdicts, the largest the oldest.

        ``again``: verdicts that were found again; ``ending``: the ids of those that are over if nothing holds them. A
        single device of a group's open verdict opens none beside it: the group's ends first.
        """
        rest, opened, taken = list(lost), list[Finding](), _Kept()
        groups = [one for one in fresh if one.verdict.kind in GROUPS]
        for finding in sorted(groups, key=lambda one: (-len(one.verdict.devices), one.verdict.key)):
            older = next((one for one in rest if one.kind in GROUPS and _is_same_drift(one, finding)), None)
            if older is not None:
                taken.append((older, finding))
                rest.remove(older)
        groups += [finding for _, finding in again if finding.verdict.kind in GROUPS]
        left = [one for one in rest if one.kind in GROUPS and not any(_is_same_drift(one, two) for two in groups)]
        single = [one for one in fresh if one.verdict.kind is VerdictKind.DEVICE_LOCAL]
        stays = [
            verdict for verdict in left
            if 2 * sum(_is_same_drift(verdict, finding) for finding in single) >= len(verdict.devices)
        ]  # fmt: skip
        open_ = [one for one in left if one.id not in ending or one in stays]
        for finding in fresh:
            held = finding.verdict.kind is VerdictKind.DEVICE_LOCAL and any(
                _is_same_drift(verdict, finding) for verdict in open_
            )
            if not held and all(finding is not one for _, one in taken):
                opened.append(finding)
        return cls(opened=opened, taken=taken, stays=stays, rest=[one for one in rest if one not in stays])

    def parts(self, found: Sequence[tuple[int, Finding]]) -> list[tuple[StoredVerdict, int]]:
        """Return the verdicts that go on in one of the groups ``found`` in this window, with the id of that."""
        groups = [(number, finding) for number, finding in found if finding.verdict.kind in GROUPS]
        wholes = [
            (verdict, next((number for number, finding in groups if _is_same_drift(verdict, finding)), 0))
            for verdict in self.rest
        ]
        return [(verdict, whole) for verdict, whole in wholes if whole]


def _is_same_drift(verdict: StoredVerdict, finding: Finding) -> bool:
    """Return whether both are about one drift: of the same model and devices, in a stream that both name.

    At least half of the devices of the smaller one: the other may be wider or narrower.
    """
    kinds, mine, its = {*GROUPS, VerdictKind.DEVICE_LOCAL}, set(finding.verdict.devices), set(verdict.devices)
    if not {verdict.kind, finding.verdict.kind} <= kinds or verdict.model != finding.model or not mine or not its:
        return False
    return bool({*verdict.streams} & {*finding.streams}) and 2 * len(mine & its) >= min(len(mine), len(its))


def _identity(kind: VerdictKind, model: str, key: str) -> tuple[str, str]:
    return "" if kind is VerdictKind.DEVICE_FAULT else model, key


def _row(finding: Finding, window_ms: int, now_ms: int) -> dict[str, object]:
    verdict = finding.verdict
    return {
        "key": verdict.key, "kind": verdict.kind.value, "first_window_ms": window_ms, "last_window_ms": window_ms,
        "windows": 1, "opened_ms": now_ms, "closed_ms": 0, "devices": list(verdict.devices),
        "attributes": dict(verdict.attributes), "cause": finding.cause, "action": finding.action,
        "detail": verdict.detail, "release": finding.release, "model": finding.model,
        "provisional": finding.provisional, "streams": list(finding.streams), "part_of": 0,
    }  # fmt: skip


def _taken(older: StoredVerdict, finding: Finding, window_ms: int, *, judged: bool) -> dict[str, object]:
    """Return the columns of a verdict that goes on as another ``finding``: about the devices of that."""
    verdict, kept = finding.verdict, _kept(older, finding, window_ms, judged=judged)
    return kept | {
        "key": verdict.key, "kind": verdict.kind.value, "attributes": dict(verdict.attributes),
        "detail": verdict.detail, "release": finding.release, "action": finding.action,
        "devices": sorted(verdict.devices),
    }  # fmt: skip


def _kept(older: StoredVerdict, finding: Finding, window_ms: int, *, judged: bool) -> dict[str, object]:
    unknown = finding.faint or finding.cause == UNKNOWN_CAUSE
    return {
        "verdict": older.id, "last_window_ms": window_ms, "windows": older.windows + judged,
        "devices": sorted({*older.devices, *finding.verdict.devices}),
        "cause": older.cause if unknown else finding.cause, "provisional": finding.provisional,
        "streams": list(older.streams if unknown else finding.streams), "key": older.key, "kind": older.kind.value,
        "attributes": dict(older.attributes), "detail": older.detail, "release": older.release, "action": older.action,
    }  # fmt: skip


def _opened(finding: Finding, number: int, now_ms: int) -> dict[str, object]:
    verdict = finding.verdict
    device = verdict.devices[0] if len(verdict.devices) == 1 else None
    subject = _subject(verdict.kind, verdict.attributes, verdict.detail)
    text = f"{subject}: {listed(verdict.devices, _NAMED)}: {finding.cause}; {finding.action}"
    if finding.provisional:
        text = f"Provisional, its baseline is still collected: {text}"
    data = {"verdict": number}
    routine = verdict.kind is VerdictKind.DEVICE_FAULT
    return event_row(
        now_ms, "verdict", verdict.kind.value, Severity.WARNING, text, device=device, data=data, routine=routine
    )


def _renamed(older: StoredVerdict, finding: Finding, now_ms: int) -> dict[str, object]:
    """Return the event of a verdict that goes on as another ``finding``: a warning if that has devices that are new."""
    verdict = finding.verdict
    before = _subject(older.kind, tuple(older.attributes.items()), older.detail)
    now = _subject(verdict.kind, verdict.attributes, verdict.detail)
    text = f"{now}, {before} so far: {listed(verdict.devices, _NAMED)}: {finding.cause}; {finding.action}"
    severity = Severity.INFO if set(verdict.devices) <= set(older.devices) else Severity.WARNING
    return event_row(now_ms, "verdict", verdict.kind.value, severity, text, data={"verdict": older.id})


def _closed(verdict: StoredVerdict, now_ms: int, ending: str) -> dict[str, object]:
    subject = _subject(verdict.kind, tuple(verdict.attributes.items()), verdict.detail)
    text = f"{ending}: {subject}: {listed(verdict.devices, _NAMED)}: {verdict.cause}"
    device = verdict.devices[0] if len(verdict.devices) == 1 else None
    data = {"verdict": verdict.id}
    routine = verdict.kind is VerdictKind.DEVICE_FAULT
    return event_row(
        now_ms, "verdict", "verdict_closed", Severity.INFO, text, device=device, data=data, routine=routine
    )


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
    streams = values["streams"]
    values |= {"kind": VerdictKind(str(values["kind"])), "devices": tuple(devices if isinstance(devices, list) else ())}
    values["streams"] = tuple(streams if isinstance(streams, list) else ())
    return StoredVerdict(**values)  # type: ignore[arg-type]
