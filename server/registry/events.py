"""The event log: what happened in the fleet and in the server, append only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import sqlalchemy as sa

from server.store.database import Database
from server.store.events import events_after, insert_events, latest_events
from wire.codec import Json
from wire.messages import Severity


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """One entry. ``kind`` groups (update, alarm, ingest, rollout, ...), ``code`` is stable, ``text`` is for people."""

    id: int
    at_ms: int
    kind: str
    code: str
    severity: Severity
    text: str
    device: str | None = None
    data: Mapping[str, Json] = field(default_factory=dict)


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

    def after(self, after: int, limit: int = 200, *, device: str | None = None) -> tuple[LoggedEvent, ...]:
        """Return up to ``limit`` events with an id above ``after``, oldest first."""
        with self.database.begin() as connection:
            return tuple(_event(row) for row in events_after(connection, after, limit, device))

    def latest(self, limit: int = 50, *, device: str | None = None) -> tuple[LoggedEvent, ...]:
        """Return the ``limit`` newest events, newest first."""
        with self.database.begin() as connection:
            return tuple(_event(row) for row in latest_events(connection, limit, device))


def event_row(  # noqa: PLR0913 - one argument per column
    at_ms: int, kind: str, code: str, severity: Severity, text: str, *, device: str | None = None,
    data: Mapping[str, Json] | None = None,
) -> dict[str, object]:  # fmt: skip
    """Return the row of an event, for callers that append it in their own transaction."""
    return {
        "at_ms": at_ms, "kind": kind, "code": code, "severity": severity.value, "text": text, "device": device,
        "data": dict(data or {}),
    }  # fmt: skip


def _event(row: sa.RowMapping) -> LoggedEvent:
    values = {str(key): value for key, value in row.items()} | {"severity": Severity(str(row["severity"]))}
    return LoggedEvent(**values)
