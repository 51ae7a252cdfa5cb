"""The table of devices whose new release answers otherwise: what each was asked for, and what labels show."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from server.store.database import METADATA

SUSPECTS = sa.Table(
    "suspects",
    METADATA,
    sa.Column("verdict", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("device", sa.String(63), primary_key=True),
    sa.Column("release", sa.String(127), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("asks", sa.Integer, nullable=False),
    sa.Column("asked_ms", sa.BigInteger, nullable=False),
    sa.Column("request", sa.String(64), nullable=False, server_default=""),
    sa.Column("audited", sa.Integer, nullable=False),
    sa.Column("wrong", sa.Float, nullable=False),
    sa.Column("lower_risk", sa.Float, nullable=False),
    sa.Column("upper_risk", sa.Float, nullable=False),
    sa.Column("allowed_risk", sa.Float, nullable=False),
    sa.Column("decided_ms", sa.BigInteger, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
)


def all_suspects(connection: sa.Connection) -> list[sa.RowMapping]:
    """Return every suspect, the newest verdict first."""
    query = SUSPECTS.select().order_by(SUSPECTS.c.verdict.desc(), SUSPECTS.c.device)
    return list(connection.execute(query).mappings())


def put_suspect(connection: sa.Connection, row: Mapping[str, object]) -> None:
    """Add a suspect, or replace what is known of it."""
    mine = (SUSPECTS.c.verdict == row["verdict"]) & (SUSPECTS.c.device == row["device"])
    if not connection.execute(SUSPECTS.update().where(mine).values(**row)).rowcount:
        connection.execute(SUSPECTS.insert(), dict(row))
