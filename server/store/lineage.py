"""Table and queries of the releases that ran on each device over time."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from server.store.database import METADATA

RAN = sa.Table(
    "ran",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("device", sa.String(63), nullable=False, index=True),
    sa.Column("from_ms", sa.BigInteger, nullable=False),
    sa.Column("release", sa.String(200), nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("gen", sa.BigInteger, nullable=False),
    sa.Column("received_ms", sa.BigInteger, nullable=False),
)


def insert_ran(connection: sa.Connection, row: Mapping[str, object]) -> None:
    """Record that a release runs from ``from_ms`` on."""
    connection.execute(RAN.insert(), dict(row))


def latest_from_ms(connection: sa.Connection, device: str) -> int:
    """Return when the newest transition of ``device`` was, 0 when there is none."""
    return int(connection.execute(sa.select(sa.func.max(RAN.c.from_ms)).where(RAN.c.device == device)).scalar() or 0)


def ran_at(connection: sa.Connection, device: str, at_ms: int) -> sa.RowMapping | None:
    """Return what ran at ``at_ms``: the last transition at or before it."""
    query = RAN.select().where(RAN.c.device == device, RAN.c.from_ms <= at_ms)
    return connection.execute(query.order_by(RAN.c.from_ms.desc(), RAN.c.id.desc()).limit(1)).mappings().first()


def ran_history(connection: sa.Connection, device: str) -> list[sa.RowMapping]:
    """Return every transition of a device, oldest first."""
    query = RAN.select().where(RAN.c.device == device).order_by(RAN.c.from_ms, RAN.c.id)
    return list(connection.execute(query).mappings())
