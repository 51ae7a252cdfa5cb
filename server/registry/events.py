"""The event log of fleet and server, append only.

Ids are in the order of arrival. A device's events arrive late when the server was unreachable, so each answer sorts a
device's own events by boot and sequence number, in the order in which they happened; the server's own events keep
their positions between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import sqlalchemy as sa

from server.store.database import Database
from server.store.events import ACT, TELEMETRY, events_after, insert_events, latest_events
from server.store.lists.events import EventFilter, event_page
from server.store.lists.paging import Page
from wire.codec import Json
from wire.messages import Severity

RECORDS: Mapping[str, str] = {
    "commission": ACT,  # a person says from when on a device's baseline counts
    "device": ACT,  # revoked, removed
    "drift": ACT,  # what labels decided about a release, which model a device keeps, which baselines begin anew
    "place": ACT,
    "release": ACT,
    "retraining": ACT,
    "rollout": ACT,
    "verdict": ACT,
    "enrolment": TELEMETRY,  # claims that were refused: anybody can cause as many as they like
    "ingest": TELEMETRY,
    "liveness": TELEMETRY,
    "server": TELEMETRY,
    "trust": TELEMETRY,  # how long the metadata is still valid
}
"""What the server's own events are by their kind: acts stay, telemetry is deleted. A device's are telemetry."""
ROUTINE = frozenset({("device", "certificate_renewed")})
"""Events of these kinds and codes are telemetry: each device has one every few weeks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedEvent:
    """One entry. ``kind`` groups (update, alarm, ingest, rollout, ...), ``code`` is stable, ``text`` is for people.

    ``boot`` and ``seq`` are the device's, "" and 0 for the server's own events; ``place`` orders its boots.
    ``record``: "act" if it stays when telemetry is deleted.
    """

    id: int
    at_ms: int
    kind: str
    code: str
    severity: Severity
    text: str
    device: str | None = None
    data: Mapping[str, Json] = field(default_factory=dict)
    boot: str = ""
    place: int = 0
    seq: int = 0
    record: str = TELEMETRY


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of an event: the boot of a device, that boot's place in the order of boots, and its number in it."""

    boot: str = ""
    place: int = 0
    seq: int = 0


NOBODY = Origin()
_LATE = 64  # an event arrives at most this many positions late: a device has 16 in flight


@dataclass(frozen=True, slots=True)
class EventLog:
    """The event log of one server. Safe to share between threads."""

    database: Database

    def add(  # noqa: PLR0913 - one argument per column
        self, at_ms: int, kind: str, code: str, severity: Severity, text: str, *, device: str | None = None,
        data: Mapping[str, Json] | None = None,
    ) -> None:  # fmt: skip
        """Append one event; ``at_ms`` is UTC milliseconds."""
        with self.database.begin() as connection:
            insert_events(connection, [event_row(at_ms, kind, code, severity, text, device=device, data=data)])

    def after(
        self, after: int, limit: int = 200, *, device: str | None = None, record: str | None = None
    ) -> tuple[LoggedEvent, ...]:  # fmt: skip
        """Return up to ``limit`` events with an id above ``after``, oldest first; with ``record``, only of that kind.

        To continue, call again with the highest id among them, which is not always that of the last.
        """
        with self.database.begin() as connection:
            return in_order([_event(row) for row in events_after(connection, after, limit, device, record)])

    def latest(
        self, limit: int = 50, *, device: str | None = None, record: str | None = None
    ) -> tuple[LoggedEvent, ...]:  # fmt: skip
        """Return the ``limit`` newest events, newest first; with ``record``, only of that kind."""
        with self.database.begin() as connection:
            rows = latest_events(connection, limit + _LATE, device, record)
        return in_order([_event(row) for row in reversed(rows)])[::-1][:limit]

    def page(
        self, wanted: EventFilter, *, limit: int = 200, cursor: str | None = None
    ) -> Page[LoggedEvent]:  # fmt: skip
        """Return a page of events, the newest first.

        Raises:
            CursorRefusedError: If ``cursor`` is not the ``next`` of such a page.
        """
        with self.database.begin() as connection:
            found = event_page(connection, wanted, limit=limit, cursor=cursor).of(_event)
        return replace(found, rows=in_order(found.rows[::-1])[::-1])


def in_order(events: Sequence[LoggedEvent]) -> tuple[LoggedEvent, ...]:
    """Return ``events`` (by id) with each device's own events sorted among the positions that they occupy."""
    slots: dict[str, list[int]] = {}
    for index, event in enumerate(events):
        if event.boot and event.device is not None:
            slots.setdefault(event.device, []).append(index)
    found = list(events)
    for indexes in slots.values():
        happened = sorted((events[index] for index in indexes), key=lambda event: (event.place, event.seq))
        for index, event in zip(indexes, happened, strict=True):
            found[index] = event
    return tuple(found)


def event_row(  # noqa: PLR0913 - one argument per column
    at_ms: int, kind: str, code: str, severity: Severity, text: str, *, device: str | None = None,
    data: Mapping[str, Json] | None = None, origin: Origin = NOBODY, routine: bool = False,
) -> dict[str, object]:  # fmt: skip
    """Return the row of an event, for callers that append it in their own transaction.

    ``routine``: telemetry, although others of its kind are acts.
    """
    own = origin == NOBODY and not routine and (kind, code) not in ROUTINE
    return {
        "at_ms": at_ms, "kind": kind, "code": code, "severity": severity.value, "text": text, "device": device,
        "data": dict(data or {}), "boot": origin.boot, "place": origin.place, "seq": origin.seq,
        "record": RECORDS.get(kind, TELEMETRY) if own else TELEMETRY,
    }  # fmt: skip


def _event(row: sa.RowMapping) -> LoggedEvent:
    values = {str(key): value for key, value in row.items()} | {"severity": Severity(str(row["severity"]))}
    return LoggedEvent(**values)
