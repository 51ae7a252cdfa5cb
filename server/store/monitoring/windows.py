"""Tables and queries of drift windows.

``id`` only grows. A window that changes gets a new id, so that a reader with a cursor sees it again.
"""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa

from server.store.database import METADATA, insert_many
from server.store.monitoring.settled import announce_rows, settled_id

WINDOWS = sa.Table(
    "windows",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("device", sa.String(63), nullable=False),
    sa.Column("site", sa.String(63), nullable=False),
    sa.Column("start_ms", sa.BigInteger, nullable=False, index=True),
    sa.Column("len_ms", sa.BigInteger, nullable=False),
    sa.Column("context", sa.Integer, nullable=False),
    sa.Column("artifact", sa.String(32), nullable=False),
    sa.Column("ref_id", sa.String(32), nullable=False),
    sa.Column("streams", sa.Integer, nullable=False),
    sa.Column("classes", sa.Integer, nullable=False),
    sa.Column("confidence_bins", sa.Integer, nullable=False),
    sa.Column("n", sa.BigInteger, nullable=False),
    sa.Column("reports", sa.Integer, nullable=False),
    sa.Column("values", sa.LargeBinary, nullable=False),
    sa.Column("received_ms", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("device", "start_ms", "ref_id", "artifact", "context"),
    sqlite_autoincrement=True,
)
_KEY = ("device", "start_ms", "ref_id", "artifact", "context")
LATE_MS = 300_000
"""A window that arrives later after its end waited on its device; a child may close one a minute late."""


def windows_at(
    connection: sa.Connection, keys: Collection[tuple[object, ...]]
) -> dict[tuple[object, ...], sa.RowMapping]:
    """Return the stored windows of ``keys`` (device, start, reference, artifact, context), by key.

    Two queries for any number of keys: most windows are new, so the first query compares keys only.
    """
    if not keys:
        return {}
    devices, starts = {key[0] for key in keys}, {key[1] for key in keys}
    columns = [WINDOWS.c.id, *(WINDOWS.c[name] for name in _KEY)]
    query = sa.select(*columns).where(WINDOWS.c.device.in_(devices), WINDOWS.c.start_ms.in_(starts))
    known = {tuple(row[1:]): row[0] for row in connection.execute(query)}
    wanted = [known[key] for key in keys if key in known]
    if not wanted:
        return {}
    rows = connection.execute(WINDOWS.select().where(WINDOWS.c.id.in_(wanted))).mappings()
    return {tuple(row[name] for name in _KEY): row for row in rows}


def delete_windows(connection: sa.Connection, ids: Collection[int]) -> None:
    """Delete windows, before their successors are inserted."""
    if ids:
        connection.execute(WINDOWS.delete().where(WINDOWS.c.id.in_(ids)))


def insert_windows(connection: sa.Connection, rows: list[dict[str, object]]) -> None:
    """Append windows (all columns but ``id``)."""
    if rows:
        announce_rows(connection, WINDOWS)
        insert_many(connection, WINDOWS, rows)


def windows_since(connection: sa.Connection, cursor: int, limit: int) -> list[sa.RowMapping]:
    """Return up to ``limit`` windows with an id above ``cursor``, in the order of ids; no lower one comes later."""
    query = WINDOWS.select().where(*_after(connection, cursor)).order_by(WINDOWS.c.id).limit(limit)
    return list(connection.execute(query).mappings())


def arrived_since(connection: sa.Connection, cursor: int, from_ms: int) -> tuple[int, int | None]:
    """Return the highest id and the earliest start, from ``from_ms`` on, of the windows with an id above ``cursor``.

    (``cursor``, None) when there is none. Of windows above the returned id, none was looked at: they come next time.
    """
    earliest = sa.func.min(sa.case((WINDOWS.c.start_ms >= from_ms, WINDOWS.c.start_ms)))
    newest, start_ms = connection.execute(
        sa.select(sa.func.max(WINDOWS.c.id), earliest).where(*_after(connection, cursor))
    ).one()
    return (cursor if newest is None else int(newest), None if start_ms is None else int(start_ms))


def windows_between(connection: sa.Connection, start_ms: int, end_ms: int, device: str | None) -> list[sa.RowMapping]:
    """Return the windows that start in [start_ms, end_ms), by start and device."""
    query = WINDOWS.select().where(WINDOWS.c.start_ms >= start_ms, WINDOWS.c.start_ms < end_ms)
    if device is not None:
        query = query.where(WINDOWS.c.device == device)
    return list(connection.execute(query.order_by(WINDOWS.c.start_ms, WINDOWS.c.device)).mappings())


def images_since(connection: sa.Connection, since_ms: int) -> dict[str, tuple[int, int]]:
    """Return, by device, the inferences of its windows that start at ``since_ms`` or later, and the first start."""
    columns = WINDOWS.c
    query = sa.select(columns.device, sa.func.sum(columns.n), sa.func.min(columns.start_ms))
    rows = connection.execute(query.where(columns.start_ms >= since_ms).group_by(columns.device))
    return {device: (int(n), int(first_ms)) for device, n, first_ms in rows}


def late_windows(connection: sa.Connection, device: str) -> sa.RowMapping:
    """Return a summary of the windows of ``device`` that arrived more than ``LATE_MS`` after their end.

    ``windows``, their inferences ``n``, the longest ``delay_ms``, and how many were ``merged`` on the device (longer
    than its shortest window).
    """
    columns, other = WINDOWS.c, WINDOWS.alias()
    delay_ms = columns.received_ms - columns.start_ms - columns.len_ms
    shortest = sa.select(sa.func.min(other.c.len_ms)).where(other.c.device == device).scalar_subquery()
    query = sa.select(
        sa.func.count().label("windows"),
        sa.cast(sa.func.coalesce(sa.func.sum(columns.n), 0), sa.BigInteger).label("n"),  # PostgreSQL's is a numeric
        sa.func.coalesce(sa.func.max(delay_ms), 0).label("delay_ms"),
        sa.func.coalesce(sa.func.sum(sa.case((columns.len_ms > shortest, 1), else_=0)), 0).label("merged"),
    ).where(columns.device == device, delay_ms > LATE_MS)
    return connection.execute(query).mappings().one()


def starts_beside(
    connection: sa.Connection, device: str, at_ms: int | None
) -> tuple[int | None, int | None, int | None]:  # fmt: skip
    """Return the start of a device's newest window at ``at_ms`` or before, of the one before it, and of the one after.

    ``at_ms`` None: of its newest. Each is None if there is none.
    """
    start, mine = WINDOWS.c.start_ms, WINDOWS.c.device == device

    def first(which: sa.ColumnElement[int], *where: sa.ColumnElement[bool]) -> int | None:
        found = connection.execute(sa.select(which).where(mine, *where)).scalar()
        return None if found is None else int(found)

    here = first(sa.func.max(start), *([] if at_ms is None else [start <= at_ms]))
    if here is None:
        return None, None, None if at_ms is None else first(sa.func.min(start), start > at_ms)
    return here, first(sa.func.max(start), start < here), first(sa.func.min(start), start > here)


def latest_cursor(connection: sa.Connection) -> int:
    """Return the highest id up to which all windows are there, 0 when there is none."""
    query = sa.select(sa.func.max(WINDOWS.c.id)).where(*_after(connection, 0))
    return int(connection.execute(query).scalar() or 0)


def _after(connection: sa.Connection, cursor: int) -> list[sa.ColumnElement[bool]]:
    """Return the conditions on windows above ``cursor`` such that no lower id comes later."""
    settled = settled_id(connection, WINDOWS)
    return [WINDOWS.c.id > cursor, *([] if settled is None else [WINDOWS.c.id <= settled])]
