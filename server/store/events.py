"""Tables and queries of the event log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from server.store.database import METADATA

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
    sqlite_autoincrement=True,
)


def insert_events(connection: sa.Connection, rows: Sequence[Mapping[str, object]]) -> None:
    """Append ``rows`` (all columns but ``id``)."""
    if rows:
        connection.execute(EVENTS.insert(), [dict(row) for row in rows])


def events_after(connection: sa.Connection, after: int, limit: int, device: str | None) -> list[sa.RowMapping]:
    """Return up to ``limit`` events with an id above ``after``, oldest first."""
    query = EVENTS.select().where(EVENTS.c.id > after).order_by(EVENTS.c.id).limit(limit)
    if device is not None:
        query = query.where(EVENTS.c.device == device)
    return list(connection.execute(query).mappings())


def latest_events(connection: sa.Connection, limit: int, device: str | None) -> list[sa.RowMapping]:
    """Return the ``limit`` newest events, newest first."""
    query = EVENTS.select().order_by(EVENTS.c.id.desc()).limit(limit)
    if device is not None:
        query = query.where(EVENTS.c.device == device)
    return list(connection.execute(query).mappings())


def delete_events_before(connection: sa.Connection, before_ms: int) -> int:
    """Delete events older than ``before_ms``; return how many."""
    return connection.execute(EVENTS.delete().where(EVENTS.c.at_ms < before_ms)).rowcount
