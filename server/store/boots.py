"""Table and queries of the devices' boots and their order."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import sqlalchemy as sa

from server.store.database import METADATA, upsert

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


def delete_boots_before(connection: sa.Connection, before_ms: int) -> int:
    """Delete boots first seen before ``before_ms``, except each device's newest; return how many."""
    other = BOOTS.alias()
    newest = sa.select(sa.func.max(other.c.place)).where(other.c.device == BOOTS.c.device).scalar_subquery()
    return connection.execute(
        BOOTS.delete().where(BOOTS.c.heard_ms < before_ms, BOOTS.c.place < newest)
    ).rowcount  # fmt: skip
