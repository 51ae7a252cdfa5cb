"""Table and queries of what devices use by day: bytes on air and to the disk, and what their spools dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from server.store.database import METADATA, upsert

DEVICE_DAYS = sa.Table(
    "device_days",
    METADATA,
    sa.Column("device", sa.String(63), primary_key=True),
    sa.Column("day", sa.String(10), primary_key=True),
    sa.Column("sent_bytes", sa.BigInteger, nullable=False),
    sa.Column("received_bytes", sa.BigInteger, nullable=False),
    sa.Column("written_bytes", sa.BigInteger, nullable=False),
    sa.Column("dropped", sa.JSON, nullable=False),
    sa.Column("merged", sa.BigInteger, nullable=False),
    sa.Column("received_ms", sa.BigInteger, nullable=False),
)
_KEY = ("device", "day")
_GROWING = ("sent_bytes", "received_bytes", "written_bytes", "merged")


def put_device_days(connection: sa.Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert or update days (all columns); of each figure the largest stays.

    Reports of one day may arrive in any order, and a device that lost its figures begins again at 0.
    """
    for given in rows:
        row = dict(given)
        where = sa.and_(*(DEVICE_DAYS.c[name] == row[name] for name in _KEY))
        known = connection.execute(DEVICE_DAYS.select().where(where)).mappings().first()
        if known is not None:
            dropped = {name: max(row["dropped"].get(name, 0), lost) for name, lost in known["dropped"].items()}
            row |= {"dropped": {**row["dropped"], **dropped}} | {name: max(row[name], known[name]) for name in _GROWING}
        insert = upsert(connection, DEVICE_DAYS).values(row)
        changed = {column.name: insert.excluded[column.name] for column in DEVICE_DAYS.c if column.name not in _KEY}
        connection.execute(insert.on_conflict_do_update(index_elements=list(_KEY), set_=changed))


def device_days(connection: sa.Connection, device: str, limit: int) -> list[sa.RowMapping]:
    """Return the ``limit`` newest days of a device, newest first."""
    query = DEVICE_DAYS.select().where(DEVICE_DAYS.c.device == device)
    return list(connection.execute(query.order_by(DEVICE_DAYS.c.day.desc()).limit(limit)).mappings())


def delete_device_days_before(connection: sa.Connection, before_ms: int) -> int:
    """Delete days about which nothing has arrived since ``before_ms``; return how many."""
    return connection.execute(DEVICE_DAYS.delete().where(DEVICE_DAYS.c.received_ms < before_ms)).rowcount
