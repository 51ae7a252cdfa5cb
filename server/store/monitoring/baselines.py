"""Table and queries of the devices' completed baselines, against which drift is measured.

A row is written once and never changed. There is one for each device, release and context, some kilobytes large.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from server.store.database import METADATA, upsert

BASELINES = sa.Table(
    "baselines",
    METADATA,
    sa.Column("ref_id", sa.String(32), primary_key=True),
    sa.Column("artifact", sa.String(32), primary_key=True),
    sa.Column("device", sa.String(63), primary_key=True),
    sa.Column("context", sa.Integer, primary_key=True),
    sa.Column("completed_ms", sa.BigInteger, nullable=False),
    sa.Column("windows", sa.Integer, nullable=False),
    sa.Column("counts", sa.LargeBinary, nullable=False),
    sa.Column("squares", sa.LargeBinary, nullable=False),
)


def add_baselines(connection: sa.Connection, rows: Sequence[Mapping[str, object]]) -> None:
    """Add baselines; existing ones are not changed."""
    if rows:
        connection.execute(upsert(connection, BASELINES).on_conflict_do_nothing(), [dict(row) for row in rows])


def baselines_of(connection: sa.Connection, ref_id: str, artifact: str) -> list[sa.RowMapping]:
    """Return every device's baselines under one reference."""
    query = BASELINES.select().where(BASELINES.c.ref_id == ref_id, BASELINES.c.artifact == artifact)
    return list(connection.execute(query.order_by(BASELINES.c.device, BASELINES.c.context)).mappings())
