"""Tables and queries of ingest: the boots of devices, the progress of each stream, and batches of measurements."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import sqlalchemy as sa

from server.store.database import METADATA, delete_arrived_before, delete_some, upsert

BOOTS = sa.Table(
    "boots",
    METADATA,
    sa.Column("device", sa.String(63), primary_key=True),
    sa.Column("boot", sa.String(64), primary_key=True),
    sa.Column("place", sa.BigInteger, nullable=False),
    sa.Column("heard_ms", sa.BigInteger, nullable=False),
)


def boots_of(connection: sa.Connection, devices: Collection[str]) -> list[sa.RowMapping]:
    """Return the boots of ``devices`` with their places."""
    if not devices:
        return []
    return list(connection.execute(BOOTS.select().where(BOOTS.c.device.in_(devices))).mappings())


def insert_boots(connection: sa.Connection, rows: Sequence[Mapping[str, object]]) -> None:
    """Add boots; an existing one keeps its place."""
    if rows:
        connection.execute(upsert(connection, BOOTS).on_conflict_do_nothing(), [dict(row) for row in rows])


def delete_boots_before(connection: sa.Connection, before_ms: int, limit: int) -> int:
    """Delete boots first seen before ``before_ms``, except each device's newest; return how many."""
    other = BOOTS.alias()
    newest = sa.select(sa.func.max(other.c.place)).where(other.c.device == BOOTS.c.device).scalar_subquery()
    return delete_some(connection, BOOTS, limit, BOOTS.c.heard_ms < before_ms, BOOTS.c.place < newest)


PROGRESS = sa.Table(
    "progress",
    METADATA,
    sa.Column("device", sa.String(63), primary_key=True),
    sa.Column("stream", sa.String(16), primary_key=True),
    sa.Column("boot", sa.String(64), primary_key=True),
    sa.Column("through_seq", sa.BigInteger, nullable=False),
    sa.Column("ahead", sa.Text, nullable=False),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
)

BATCHES = sa.Table(
    "batches",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("device", sa.String(63), nullable=False),
    sa.Column("stream", sa.String(16), nullable=False),
    sa.Column("t0_ms", sa.BigInteger, nullable=False, index=True),
    sa.Column("n", sa.BigInteger, nullable=False),
    sa.Column("rows", sa.JSON, nullable=False),
    sa.Column("received_ms", sa.BigInteger, nullable=False),
    sa.Index("batches_of_device", "device", "stream", "t0_ms"),
)


def progress_of(connection: sa.Connection, devices: Collection[str], boots: Collection[str]) -> list[sa.RowMapping]:
    """Return the progress of the streams of ``devices`` in ``boots``."""
    if not devices:
        return []
    query = PROGRESS.select().where(PROGRESS.c.device.in_(devices), PROGRESS.c.boot.in_(boots))
    return list(connection.execute(query).mappings())


def put_progress(connection: sa.Connection, rows: Sequence[Mapping[str, object]]) -> None:
    """Insert or update the progress of streams."""
    if not rows:
        return
    insert = upsert(connection, PROGRESS)
    changed = {name: insert.excluded[name] for name in ("through_seq", "ahead", "at_ms")}
    statement = insert.on_conflict_do_update(index_elements=["device", "stream", "boot"], set_=changed)
    connection.execute(statement, [dict(row) for row in rows])


def insert_batches(connection: sa.Connection, rows: Sequence[Mapping[str, object]]) -> None:
    """Append batches of measurements."""
    if rows:
        connection.execute(BATCHES.insert(), [dict(row) for row in rows])


def latest_batches(connection: sa.Connection, device: str, stream: str, limit: int) -> list[sa.RowMapping]:
    """Return the ``limit`` newest batches of a stream, newest first; none is newer than its arrival."""
    query = BATCHES.select().where(BATCHES.c.device == device, BATCHES.c.stream == stream)
    at_ms = sa.case((BATCHES.c.t0_ms > BATCHES.c.received_ms, BATCHES.c.received_ms), else_=BATCHES.c.t0_ms)
    return list(connection.execute(query.order_by(at_ms.desc(), BATCHES.c.id.desc()).limit(limit)).mappings())


def batches_within(
    connection: sa.Connection, device: str, stream: str, from_ms: int, until_ms: int
) -> tuple[list[int], int]:  # fmt: skip
    """Return the ids of the batches of a stream that start in [from_ms, until_ms], by start, and the newest start.

    The newest is 0 if there is no batch of any time. The rows are not read: an index has what is returned.
    """
    mine = (BATCHES.c.device == device, BATCHES.c.stream == stream)
    inside = sa.select(BATCHES.c.id).where(*mine, BATCHES.c.t0_ms >= from_ms, BATCHES.c.t0_ms <= until_ms)
    newest = connection.execute(sa.select(sa.func.max(BATCHES.c.t0_ms)).where(*mine)).scalar()
    return list(connection.execute(inside.order_by(BATCHES.c.t0_ms, BATCHES.c.id)).scalars()), int(newest or 0)


def batches_by_id(connection: sa.Connection, ids: Collection[int]) -> list[sa.RowMapping]:
    """Return the batches of ``ids``, by start."""
    if not ids:
        return []
    query = BATCHES.select().where(BATCHES.c.id.in_(ids)).order_by(BATCHES.c.t0_ms, BATCHES.c.id)
    return list(connection.execute(query).mappings())


def delete_batches_before(connection: sa.Connection, before_ms: int, limit: int) -> int:
    """Delete batches that arrived before ``before_ms``; return how many."""
    return delete_arrived_before(connection, BATCHES, before_ms, limit)


def delete_progress_before(connection: sa.Connection, before_ms: int, limit: int) -> int:
    """Delete the progress of boots without a message since ``before_ms``; return how many."""
    return delete_some(connection, PROGRESS, limit, PROGRESS.c.at_ms < before_ms)
