"""All alerts of one server: follows their causes, records what people do about them, and writes what is to be sent.

An alert, its history and what is to be delivered about it are written in one transaction, so that after a crash
either all of it is there or nothing. Delivering is the business of ``delivery``.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import sqlalchemy as sa

from server.access.audit_log import record_act
from server.alerts.config import AlertsConfig
from server.alerts.model import (
    UNRESOLVED,
    Alert,
    AlertAct,
    AlertCause,
    AlertHistory,
    AlertKind,
    AlertSeverity,
    AlertState,
    NoticeEvent,
)
from server.alerts.notices import document_of, routes_for
from server.alerts.rules import AlertStep, settle
from server.clock import Clock, system_now_ms
from server.errors import AlertRefusedError, UnknownAlertError
from server.ingest.faults import said_text
from server.people import MAX_NAME, MAX_WHY, SOMEBODY, By, actor_of
from server.store.database import Database
from server.store.lists.paging import Page
from server.store.monitoring import alerts as store
from server.wording import duration

MAX_SNOOZE_MS = 90 * 86_400_000
_NAMES = {
    "acknowledged": "acknowledge", "taken": "take", "snoozed": "snooze", "resolved": "resolve", "note": "note",
}  # fmt: skip
"""The acts of the log, by what the history of an alert calls them."""
_TRIES = 5


def _no_address() -> str:
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryState:
    """How far the delivery of one notice is. ``delivered_ms``: 0 until the receiver accepted it."""

    id: int
    route: str
    event: str
    key: str
    created_ms: int
    attempts: int
    next_ms: int
    failed_ms: int
    error: str
    delivered_ms: int
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingRoute:
    """A route with ``waiting`` notices that no receiver has accepted, the oldest since ``since_ms``."""

    route: str
    waiting: int
    since_ms: int
    attempts: int
    error: str


@dataclass(slots=True, kw_only=True)
class Alerts:
    """All alerts. Safe to share between threads.

    ``base_url``: returns the address of the pages for people. ``wake``: called after something to deliver was stored.
    """

    database: Database
    config: AlertsConfig = field(default_factory=AlertsConfig)
    clock: Clock = system_now_ms
    base_url: Callable[[], str] = _no_address
    wake: Callable[[], None] = field(default=lambda: None)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def settle(self, causes: Sequence[AlertCause], now_ms: int, held: Collection[str] = frozenset()) -> None:
        """Let the alerts follow ``causes``, all that is wrong at ``now_ms`` (UTC ms).

        ``held``: the keys of causes that are left out because their devices are muted.
        """
        since_ms, sent = now_ms - int(1000 * self.config.reopen_s), False
        full = {cause.key: cause.sites for cause in causes}
        with self._lock:
            with self.database.begin() as connection:
                known = [_alert(row) for row in store.alerts_to_settle(connection, since_ms)]
            steps = settle(known, causes, now_ms, self.config, held)
            if not steps:
                return
            with self.database.begin() as connection:
                for step in steps:
                    sent |= self._write(connection, step, now_ms, full.get(step.after.key, step.after.sites))
        if sent:
            self.wake()

    def _write(self, connection: sa.Connection, step: AlertStep, now_ms: int, sites: Sequence[str]) -> bool:
        """Write one step; return whether something is to be sent. An alert that a person changed meanwhile waits."""
        after = step.after
        if not after.id:
            after = replace(after, id=store.insert_alert(connection, _row(after)))
        elif not store.update_alert(connection, after.id, after.revision, _row(after)):
            return False
        if step.act is not None:
            _note(connection, after.id, step.act, now_ms)
        if step.notice is None:
            return False
        text = step.act.text if step.act is not None else ""
        return self._send(connection, after, step.notice, now_ms, text, sites)

    def _send(
        self, connection: sa.Connection, alert: Alert, event: NoticeEvent, now_ms: int, text: str, sites: Sequence[str]
    ) -> bool:
        body = document_of(alert, event, now_ms, text, self.base_url())
        rows = [
            {"alert": alert.id, "route": route, "event": event.value, "key": secrets.token_hex(16), "body": body,
             "created_ms": now_ms}
            for route in routes_for(self.config.route, alert, sites, event)
        ]  # fmt: skip
        store.insert_notices(connection, rows)
        return bool(rows)

    def open_keys(self) -> frozenset[str]:
        """Return the keys of the alerts that are not resolved."""
        with self.database.begin() as connection:
            return store.unresolved_keys(connection)

    def page(
        self, states: Collection[AlertState] = UNRESOLVED, *, kind: str = "", search: str = "", limit: int = 100,
        cursor: str | None = None,
    ) -> Page[Alert]:  # fmt: skip
        """Return a page of the alerts in one of ``states``, newest first.

        Args:
            states: In which they are.
            kind: Of which kind, "" for any.
            search: Words that must stand in title or cause, in any case.
            limit: How many at most.
            cursor: Of the page beside this one, None for the first.

        Raises:
            CursorRefusedError: If ``cursor`` is of another list.
        """
        names = {state.value for state in states}
        with self.database.begin() as connection:
            found = store.alert_page(connection, names, kind=kind, search=search, limit=limit, cursor=cursor)
        rows = tuple(_alert(row) for row in found.rows)
        return Page(rows=rows, next=found.next, previous=found.previous, total=found.total)

    def list(self, states: Collection[AlertState] = UNRESOLVED, *, limit: int = 100) -> tuple[Alert, ...]:
        """Return the newest ``limit`` alerts in one of ``states``, newest first."""
        return self.page(states, limit=limit).rows

    def get(self, alert: int) -> Alert:
        """Return one alert.

        Raises:
            UnknownAlertError: If there is none of that id.
        """
        missing = UnknownAlertError(f"Expected the id of an alert, got {alert}: see fleet-server alerts list")
        return _alert(self.database.row(lambda connection: store.one_alert(connection, alert), missing))

    def history(self, alert: int) -> tuple[AlertHistory, ...]:
        """Return what happened to an alert, oldest first."""
        with self.database.begin() as connection:
            rows = store.acts_of(connection, alert)
        return tuple(
            AlertHistory(id=row["id"], at_ms=row["at_ms"], act=row["act"], by=row["by"], text=row["text"])
            for row in rows
        )

    def deliveries(self, alert: int) -> tuple[DeliveryState, ...]:
        """Return what was and is to be delivered about an alert, oldest first."""
        with self.database.begin() as connection:
            rows = store.notices_of(connection, alert)
        return tuple(DeliveryState(**{str(k): v for k, v in row.items() if k != "alert"}) for row in rows)

    def counts(self) -> Mapping[tuple[str, str], int]:
        """Return the number of alerts that are not resolved, by severity and state."""
        with self.database.begin() as connection:
            return store.counted_alerts(connection)

    def waiting(self) -> tuple[WaitingRoute, ...]:
        """Return the routes by which something is not delivered yet."""
        with self.database.begin() as connection:
            rows = store.waiting_notices(connection)
        names = WaitingRoute.__dataclass_fields__
        return tuple(WaitingRoute(**{name: row[name] for name in names}) for row in rows)  # type: ignore[arg-type]

    def forsake(self) -> Mapping[str, int]:
        """Give up what is to go by routes that the settings don't have any more; return how much by which."""
        names = [route.name for route in self.config.route]
        with self.database.begin() as connection:
            return store.forsaken_notices(connection, names, self.clock(), "given up: the route is not in server.toml")

    def failing(self) -> tuple[str, ...]:
        """Return each route by which something waits for longer than ``failing_s``, in words."""
        now_ms = self.clock()
        return tuple(
            f"{one.route}: {one.waiting} for {duration(now_ms - one.since_ms)}" + f": {one.error}" * bool(one.error)
            for one in self.waiting() if now_ms - one.since_ms > 1000 * self.config.failing_s
        )  # fmt: skip

    def acknowledge(self, alert: int, *, by: By = SOMEBODY, note: str = "") -> Alert:
        """Record that ``by`` has seen an alert; a snooze ends.

        Raises:
            UnknownAlertError: If there is none of that id.
            AlertRefusedError: If it is resolved.
        """
        changes = {"state": AlertState.ACKNOWLEDGED.value, "snoozed_until_ms": 0}
        return self._change(alert, "acknowledged", changes, by, note)

    def take(self, alert: int, *, by: By = SOMEBODY, note: str = "") -> Alert:
        """Record that ``by`` looks after an alert, and has seen it.

        Raises:
            UnknownAlertError: If there is none of that id.
            AlertRefusedError: If it is resolved.
        """
        changes = {"state": AlertState.ACKNOWLEDGED.value, "snoozed_until_ms": 0, "owner": actor_of(by).name[:MAX_NAME]}
        return self._change(alert, "taken", changes, by, note)

    def snooze(self, alert: int, until_ms: int, *, by: By = SOMEBODY, note: str = "") -> Alert:
        """Send nothing about an alert until ``until_ms`` (UTC ms), but its end; then it opens again if it lasts.

        Raises:
            UnknownAlertError: If there is none of that id.
            AlertRefusedError: If it is resolved, or the time is not within the next 90 days.
        """
        now_ms = self.clock()
        if not now_ms < until_ms <= now_ms + MAX_SNOOZE_MS:
            raise AlertRefusedError("Expected a time within the next 90 days to snooze an alert until, got another")
        text = f"for {duration(until_ms - now_ms)}" + (f": {note.strip()}" if note.strip() else "")
        changes = {"state": AlertState.SNOOZED.value, "snoozed_until_ms": until_ms}
        return self._change(alert, "snoozed", changes, by, text)

    def resolve(self, alert: int, note: str, *, by: By = SOMEBODY) -> Alert:
        """End an alert for the reason ``note``, although its cause may last.

        Raises:
            UnknownAlertError: If there is none of that id.
            AlertRefusedError: If it is resolved already, or without a reason.
        """
        if not note.strip():
            raise AlertRefusedError(f"Expected the reason why alert {alert} is resolved, got none")
        changes = {
            "state": AlertState.RESOLVED.value, "resolved_ms": self.clock(), "snoozed_until_ms": 0,
            "resolved_by": actor_of(by).name[:MAX_NAME],
        }  # fmt: skip
        return self._change(alert, "resolved", changes, by, note, notice=NoticeEvent.RESOLVED)

    def note(self, alert: int, note: str, *, by: By = SOMEBODY) -> Alert:
        """Add a note to an alert, resolved or not.

        Raises:
            UnknownAlertError: If there is none of that id.
            AlertRefusedError: If the note is empty.
        """
        if not note.strip():
            raise AlertRefusedError(f"Expected a note on alert {alert}, got none")
        return self._change(alert, "note", {}, by, note, resolved_too=True)

    def _change(  # noqa: PLR0913 - what all acts share
        self, alert: int, act: str, changes: Mapping[str, object], by: By, note: str, *,
        resolved_too: bool = False, notice: NoticeEvent | None = None,
    ) -> Alert:  # fmt: skip
        text, who, sent = said_text(note.strip(), "a note", MAX_WHY), actor_of(by).name[:MAX_NAME], False
        for _ in range(_TRIES):
            with self._lock:
                known, now_ms = self.get(alert), self.clock()
                if known.state is AlertState.RESOLVED and not resolved_too:
                    message = f"Expected an alert that is not resolved, got alert {alert}, which opens again if need be"
                    raise AlertRefusedError(message)
                with self.database.begin() as connection:
                    if not store.update_alert(connection, alert, known.revision, changes):
                        continue
                    _note(connection, alert, AlertAct(act, who, text), now_ms)
                    row = store.one_alert(connection, alert)
                    after = _alert(row) if row is not None else known
                    if notice is not None:
                        said = f"Resolved by {who}: {text}"
                        sent = self._send(connection, after, notice, now_ms, said, after.sites)
                    record_act(connection, by, f"alert.{_NAMES[act]}", str(alert), now_ms, data={"note": text})
            if sent:
                self.wake()
            return after
        raise AlertRefusedError(f"Expected alert {alert} to stand still, got changes by others: try again")


def _note(connection: sa.Connection, alert: int, act: AlertAct, now_ms: int) -> None:
    store.insert_act(connection, {"alert": alert, "at_ms": now_ms, **asdict(act)})


def _row(alert: Alert) -> dict[str, object]:
    row = asdict(alert) | {"devices": list(alert.devices), "sites": list(alert.sites)}
    row |= {"kind": alert.kind.value, "severity": alert.severity.value, "state": alert.state.value}
    del row["id"]
    return row


def _alert(row: sa.RowMapping) -> Alert:
    values = {name: row[name] for name in Alert.__dataclass_fields__}  # a page has the keys of its order, too
    values |= {"devices": tuple(values["devices"]), "sites": tuple(values["sites"])}
    values |= {"kind": AlertKind(values["kind"]), "severity": AlertSeverity(values["severity"])}
    return Alert(**{**values, "state": AlertState(values["state"])})
