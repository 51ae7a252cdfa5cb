"""The table of devices whose new release answers otherwise: what each was asked for, and what labels show."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from server.store.database import METADATA, delete_some
from server.store.fleet import DEVICES
from server.store.monitoring.evidence import VERDICTS

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


def delete_suspects_before(connection: sa.Connection, before_ms: int, limit: int) -> int:
    """Delete suspects whose verdict is gone and that decide nothing any more; return how many.

    What labels showed to be harmless counts as long as the device is in the fleet.
    """
    verdict, there = sa.exists().where(VERDICTS.c.id == SUSPECTS.c.verdict), sa.exists().where(
        DEVICES.c.device == SUSPECTS.c.device, DEVICES.c.ended == ""
    )  # fmt: skip
    old = (~verdict, SUSPECTS.c.decided_ms < before_ms, sa.or_(SUSPECTS.c.state != "harmless", ~there))
    return delete_some(connection, SUSPECTS, limit, *old)
