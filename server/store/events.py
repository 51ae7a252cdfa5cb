"""Tables and queries of the event log. ``record`` says what an event is: an act, which stays, or telemetry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from server.store.database import METADATA, delete_some
from server.store.monitoring.settled import announce_rows, settled_id

ACT, TELEMETRY = "act", "telemetry"

EVENTS = sa.Table(
    "events",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
    sa.Column("kind", sa.String(64), nullable=False),
    sa.Column("code", sa.String(64), nullable=False),
    sa.Column("severity", sa.String(16), nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("device", sa.String(63), index=True),
    sa.Column("data", sa.JSON, nullable=False),
    sa.Column("boot", sa.String(64), nullable=False, server_default=""),
    sa.Column("place", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("seq", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("record", sa.String(16), nullable=False, server_default=TELEMETRY),
    sa.Index("events_by_age", "record", "at_ms"),
    sqlite_autoincrement=True,
)


def insert_events(connection: sa.Connection, rows: Sequence[Mapping[str, object]]) -> None:
    """Append ``rows`` (all columns but ``id``)."""
    if rows:
        announce_rows(connection, EVENTS)
        connection.execute(EVENTS.insert(), [dict(row) for row in rows])


def events_after(
    connection: sa.Connection, after: int, limit: int, device: str | None, record: str | None = None
) -> list[sa.RowMapping]:  # fmt: skip
    """Return up to ``limit`` events with an id above ``after``, oldest first; with ``record``, only of that kind.

    No lower id comes later.
    """
    query = _of(device, record).where(EVENTS.c.id > after).order_by(EVENTS.c.id).limit(limit)
    if (settled := settled_id(connection, EVENTS)) is not None:
        query = query.where(EVENTS.c.id <= settled)
    return list(connection.execute(query).mappings())


def latest_events(
    connection: sa.Connection, limit: int, device: str | None, record: str | None = None
) -> list[sa.RowMapping]:  # fmt: skip
    """Return the ``limit`` newest events, newest first; with ``record``, only of that kind."""
    return list(connection.execute(_of(device, record).order_by(EVENTS.c.id.desc()).limit(limit)).mappings())


def _of(device: str | None, record: str | None) -> sa.Select[tuple[object, ...]]:
    wanted = {name: value for name, value in (("device", device), ("record", record)) if value is not None}
    return EVENTS.select().filter_by(**wanted)


def delete_events_before(connection: sa.Connection, before_ms: int, limit: int, record: str = TELEMETRY) -> int:
    """Delete at most ``limit`` events of one kind that are older than ``before_ms``; return how many."""
    return delete_some(connection, EVENTS, limit, EVENTS.c.record == record, EVENTS.c.at_ms < before_ms)
