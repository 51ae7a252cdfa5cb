"""Table and queries of the server's heartbeat: one row, which is overwritten."""

from __future__ import annotations

import sqlalchemy as sa

from server.store.database import METADATA, upsert

HEARTBEAT = sa.Table(
    "heartbeat",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
)
_ROW = 1


def put_heartbeat(connection: sa.Connection, now_ms: int) -> None:
    """Record that the server runs at ``now_ms``."""
    insert = upsert(connection, HEARTBEAT).values(id=_ROW, at_ms=now_ms)
    connection.execute(insert.on_conflict_do_update(index_elements=["id"], set_={"at_ms": now_ms}))


def latest_heartbeat_ms(connection: sa.Connection) -> int:
    """Return the time of the last heartbeat, 0 for never."""
    return int(connection.execute(sa.select(sa.func.max(HEARTBEAT.c.at_ms))).scalar() or 0)
