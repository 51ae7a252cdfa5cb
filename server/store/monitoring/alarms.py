"""Tables and queries of what alarms rest on: what devices shared in each slot, and the start of each path of evidence.

A row of ``slot_shares`` says by what the windows of a slot were judged beside their own counts. ``alarms`` has one row
for each verdict that was recorded, ``alarm_paths`` one for each of its devices that is derived again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from server.store.database import METADATA, delete_some, insert_many
from server.store.monitoring.evidence import EVIDENCE, VERDICTS

SHARES = sa.Table(
    "slot_shares",
    METADATA,
    sa.Column("start_ms", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("ref_id", sa.String(32), primary_key=True),
    sa.Column("artifact", sa.String(32), primary_key=True),
    sa.Column("context", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("log_cap", sa.Double, nullable=False),
    sa.Column("common", sa.LargeBinary, nullable=False),
    sa.Column("held", sa.LargeBinary, nullable=False),
)

ALARMS = sa.Table(
    "alarms",
    METADATA,
    sa.Column("verdict", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("slot_ms", sa.BigInteger, nullable=False),
    sa.Column("code", sa.String(64), nullable=False),
    sa.Column("settings", sa.Text, nullable=False),
    sa.Column("log_threshold", sa.Double, nullable=False),
    sa.Column("judged", sa.Integer, nullable=False),
    sa.Column("decided", sa.Text, nullable=False),
)

PATHS = sa.Table(
    "alarm_paths",
    METADATA,
    sa.Column("verdict", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("device", sa.String(63), primary_key=True),
    sa.Column("ref_id", sa.String(32), nullable=False),
    sa.Column("artifact", sa.String(32), nullable=False),
    sa.Column("streams", sa.Integer, nullable=False),
    sa.Column("classes", sa.Text, nullable=False),
    sa.Column("from_ms", sa.BigInteger, nullable=False),
    sa.Column("since_baseline", sa.Boolean, nullable=False),
    sa.Column("start", sa.LargeBinary, nullable=False),
    sa.Column("baseline", sa.LargeBinary, nullable=False),
    sa.Column("skipped", sa.Text, nullable=False),
    sa.Column("windows", sa.Integer, nullable=False),
    sa.Column("inputs_sha256", sa.String(64), nullable=False),
    sa.Column("log_value", sa.Double, nullable=False),
)


def replace_shares(
    connection: sa.Connection, start_ms: int, end_ms: int, rows: Sequence[Mapping[str, object]]
) -> None:  # fmt: skip
    """Replace what the devices shared in one slot."""
    connection.execute(SHARES.delete().where(SHARES.c.start_ms >= start_ms, SHARES.c.start_ms < end_ms))
    if rows:
        insert_many(connection, SHARES, rows)


def shares_between(
    connection: sa.Connection, ref_id: str, artifact: str, start_ms: int, end_ms: int
) -> list[sa.RowMapping]:  # fmt: skip
    """Return what the devices of one release shared in the slots in [start_ms, end_ms), by start and context."""
    here = (SHARES.c.start_ms >= start_ms, SHARES.c.start_ms < end_ms, SHARES.c.ref_id == ref_id,
            SHARES.c.artifact == artifact)  # fmt: skip
    query = SHARES.select().where(*here).order_by(SHARES.c.start_ms, SHARES.c.context)
    return list(connection.execute(query).mappings())


def faulty_slots(connection: sa.Connection, device: str, start_ms: int, end_ms: int) -> list[int]:
    """Return the starts of the slots in [start_ms, end_ms) in which the window of ``device`` failed a health check."""
    here = (EVIDENCE.c.device == device, EVIDENCE.c.start_ms >= start_ms, EVIDENCE.c.start_ms < end_ms)
    query = sa.select(EVIDENCE.c.start_ms).where(*here, EVIDENCE.c.fault != "").order_by(EVIDENCE.c.start_ms)
    return [int(start) for start in connection.execute(query).scalars()]


def insert_alarm(
    connection: sa.Connection, row: Mapping[str, object], paths: Sequence[Mapping[str, object]]
) -> None:  # fmt: skip
    """Add what a verdict rests on."""
    connection.execute(ALARMS.insert(), dict(row))
    if paths:
        connection.execute(PATHS.insert(), [dict(path) for path in paths])


def alarm_of(connection: sa.Connection, verdict: int) -> sa.RowMapping | None:
    """Return the record of a verdict."""
    return connection.execute(ALARMS.select().where(ALARMS.c.verdict == verdict)).mappings().first()


def paths_of(connection: sa.Connection, verdict: int) -> list[sa.RowMapping]:
    """Return the paths of a verdict, by device."""
    query = PATHS.select().where(PATHS.c.verdict == verdict).order_by(PATHS.c.device)
    return list(connection.execute(query).mappings())


def delete_shares_before(connection: sa.Connection, before_ms: int, limit: int) -> int:
    """Delete what devices shared before ``before_ms`` in slots on which no path runs; return how many."""
    spans = sa.select(PATHS.c.from_ms, ALARMS.c.slot_ms).join(ALARMS, ALARMS.c.verdict == PATHS.c.verdict)
    deleted, free_ms = 0, 0
    for from_ms, slot_ms in [*sorted(tuple(row) for row in connection.execute(spans)), (before_ms, before_ms)]:
        end_ms = min(from_ms, before_ms)
        if end_ms > free_ms and deleted < limit:
            free = (SHARES.c.start_ms >= free_ms, SHARES.c.start_ms < end_ms)
            deleted += delete_some(connection, SHARES, limit - deleted, *free)
        free_ms = max(free_ms, slot_ms + 1)
    return deleted


def delete_alarms_before(connection: sa.Connection, _before_ms: int, limit: int) -> int:
    """Delete records of verdicts that are gone; return how many."""
    return delete_some(connection, ALARMS, limit, ~sa.exists().where(VERDICTS.c.id == ALARMS.c.verdict))


def delete_paths_before(connection: sa.Connection, _before_ms: int, limit: int) -> int:
    """Delete paths of verdicts that are gone; return how many."""
    return delete_some(connection, PATHS, limit, ~sa.exists().where(VERDICTS.c.id == PATHS.c.verdict))
