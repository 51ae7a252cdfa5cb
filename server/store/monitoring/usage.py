"""Table and queries of what devices use by day: bytes on air and to the disk, and what their spools dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from server.store.database import METADATA, delete_some, upsert

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

    Reports of one day may arrive in any order, and a device that lost its figures begins again at 0. One query and one
    statement for any number of rows: a batch has the days of many devices, and many reports of one day.
    """
    if not rows:
        return
    devices, days = {row["device"] for row in rows}, {row["day"] for row in rows}
    query = DEVICE_DAYS.select().where(DEVICE_DAYS.c.device.in_(devices), DEVICE_DAYS.c.day.in_(days))
    known = {(row["device"], row["day"]): dict(row) for row in connection.execute(query).mappings()}
    largest: dict[tuple[str, str], Mapping[str, Any]] = {}
    for row in rows:
        key = row["device"], row["day"]
        before = largest.get(key) or known.get(key)
        largest[key] = row if before is None else _largest(row, before)
    insert = upsert(connection, DEVICE_DAYS)
    changed = {column.name: insert.excluded[column.name] for column in DEVICE_DAYS.c if column.name not in _KEY}
    statement = insert.on_conflict_do_update(index_elements=list(_KEY), set_=changed)
    connection.execute(statement, [dict(row) for row in largest.values()])


def _largest(row: Mapping[str, Any], before: Mapping[str, Any]) -> Mapping[str, Any]:
    dropped = {name: max(row["dropped"].get(name, 0), lost) for name, lost in before["dropped"].items()}
    figures = {name: max(row[name], before[name]) for name in _GROWING}
    return {**row, **figures, "dropped": {**row["dropped"], **dropped}}


def device_days(connection: sa.Connection, device: str, limit: int) -> list[sa.RowMapping]:
    """Return the ``limit`` newest days of a device, newest first."""
    query = DEVICE_DAYS.select().where(DEVICE_DAYS.c.device == device)
    return list(connection.execute(query.order_by(DEVICE_DAYS.c.day.desc()).limit(limit)).mappings())


def delete_device_days_before(connection: sa.Connection, before_ms: int, limit: int) -> int:
    """Delete days about which nothing has arrived since ``before_ms``; return how many."""
    return delete_some(connection, DEVICE_DAYS, limit, DEVICE_DAYS.c.received_ms < before_ms)
