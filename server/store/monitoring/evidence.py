"""Tables and queries of drift evidence and verdicts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from server.store.database import METADATA, delete_some, insert_many
from server.store.fleet import DEVICES
from server.store.monitoring.windows import WINDOWS
from server.store.retraining import TRIGGERS

EVIDENCE = sa.Table(
    "evidence",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("device", sa.String(63), nullable=False),
    sa.Column("start_ms", sa.BigInteger, nullable=False, index=True),
    sa.Column("ref_id", sa.String(32), nullable=False),
    sa.Column("n", sa.BigInteger, nullable=False),
    sa.Column("phase", sa.String(16), nullable=False),
    sa.Column("log_value", sa.Float),
    sa.Column("training_log_value", sa.Float),
    sa.Column("log_threshold", sa.Float, nullable=False),
    sa.Column("flagged", sa.Boolean, nullable=False),
    sa.Column("new_place", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("fault", sa.String(32), nullable=False),
    sa.Column("cause", sa.Text, nullable=False),
    sa.Column("provisional", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("baseline_windows", sa.Integer, nullable=False, server_default="0"),
    sa.Column("wanted_windows", sa.Integer, nullable=False, server_default="0"),
    sa.Column("streams", sa.JSON, nullable=False),
    sa.Column("summaries", sa.JSON, nullable=False),
    sa.Index("evidence_by_device", "device", "start_ms"),
)

POOLS = sa.Table(
    "pool_evidence",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("start_ms", sa.BigInteger, nullable=False, index=True),
    sa.Column("ref_id", sa.String(32), nullable=False),
    sa.Column("attribute", sa.String(255), nullable=False),
    sa.Column("value", sa.String(255), nullable=False),
    sa.Column("members", sa.Integer, nullable=False),
    sa.Column("log_value", sa.Float),
    sa.Column("log_threshold", sa.Float, nullable=False),
    sa.Column("alarm", sa.Boolean, nullable=False),
    sa.Column("collecting", sa.Boolean, nullable=False, server_default=sa.false()),
)

VERDICTS = sa.Table(
    "verdicts",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("first_window_ms", sa.BigInteger, nullable=False),
    sa.Column("last_window_ms", sa.BigInteger, nullable=False),
    sa.Column("windows", sa.Integer, nullable=False),
    sa.Column("opened_ms", sa.BigInteger, nullable=False),
    sa.Column("closed_ms", sa.BigInteger, nullable=False, default=0, index=True),
    sa.Column("devices", sa.JSON, nullable=False),
    sa.Column("attributes", sa.JSON, nullable=False),
    sa.Column("cause", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("release", sa.String(127), nullable=False),
    sa.Column("model", sa.String(127), nullable=False),
    sa.Column("provisional", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("dismissed_ms", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("dismissed_by", sa.String(100), nullable=False, server_default=""),
    sa.Column("dismissed_why", sa.Text, nullable=False, server_default=""),
    sa.Column("streams", sa.JSON),
    sa.Column("part_of", sa.Integer, nullable=False, server_default="0"),
    sqlite_autoincrement=True,
)


def window_starts(connection: sa.Connection, start_ms: int, end_ms: int, limit: int) -> list[int]:
    """Return the first ``limit`` different starts of windows in [start_ms, end_ms), ascending."""
    query = sa.select(WINDOWS.c.start_ms).where(WINDOWS.c.start_ms >= start_ms, WINDOWS.c.start_ms < end_ms)
    return list(connection.execute(query.distinct().order_by(WINDOWS.c.start_ms).limit(limit)).scalars())


def latest_evidence_ms(connection: sa.Connection) -> int | None:
    """Return the start of the newest slot that was judged, None when there is none."""
    found = connection.execute(sa.select(sa.func.max(EVIDENCE.c.start_ms))).scalar()
    return None if found is None else int(found)


def replace_slot(
    connection: sa.Connection, start_ms: int, end_ms: int, devices: Sequence[Mapping[str, object]],
    pools: Sequence[Mapping[str, object]],
) -> None:  # fmt: skip
    """Replace the evidence of one slot.

    The details in ``devices`` (``streams`` and ``summaries``) are objects, or JSON text already.
    """
    for table in (EVIDENCE, POOLS):
        connection.execute(table.delete().where(table.c.start_ms >= start_ms, table.c.start_ms < end_ms))
    rows = []
    for row in devices:
        details = {name: row[name] for name in ("streams", "summaries")}
        texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in details.items()}
        rows.append({**row, **texts})
    if rows:
        insert_many(connection, EVIDENCE, rows)
    if pools:
        insert_many(connection, POOLS, pools)


def evidence_of(connection: sa.Connection, device: str | None, limit: int) -> list[sa.RowMapping]:
    """Return the newest ``limit`` rows of evidence, newest first."""
    query = EVIDENCE.select().order_by(EVIDENCE.c.start_ms.desc(), EVIDENCE.c.device).limit(limit)
    if device is not None:
        query = query.where(EVIDENCE.c.device == device)
    return list(connection.execute(query).mappings())


def latest_evidence(connection: sa.Connection) -> list[sa.RowMapping]:
    """Return the newest row of evidence of every device of the fleet that has any; one index lookup for each.

    Without details: decoding those of 10,000 devices takes longer than finding the rows.
    """
    columns = [column for column in EVIDENCE.c if not isinstance(column.type, sa.JSON)]
    older = EVIDENCE.alias()
    newest = sa.select(older.c.id).where(older.c.device == DEVICES.c.device).order_by(older.c.start_ms.desc()).limit(1)
    same = sa.and_(EVIDENCE.c.id == newest.correlate(DEVICES).scalar_subquery(), DEVICES.c.ended == "")
    return list(connection.execute(sa.select(*columns).select_from(DEVICES).join(EVIDENCE, same)).mappings())


def pool_evidence(connection: sa.Connection, limit: int) -> list[sa.RowMapping]:
    """Return the newest ``limit`` rows of the pools' evidence, newest first."""
    query = POOLS.select().order_by(POOLS.c.start_ms.desc(), POOLS.c.attribute, POOLS.c.value).limit(limit)
    return list(connection.execute(query).mappings())


def latest_pools(connection: sa.Connection) -> list[sa.RowMapping]:
    """Return the pools' evidence of the newest slot that has any."""
    newest = sa.select(sa.func.max(POOLS.c.start_ms)).scalar_subquery()
    return list(connection.execute(POOLS.select().where(POOLS.c.start_ms == newest)).mappings())


def insert_verdicts(connection: sa.Connection, rows: Sequence[Mapping[str, object]]) -> list[int]:
    """Add verdicts; return their ids in the same order."""
    if not rows:
        return []
    statement = VERDICTS.insert().returning(VERDICTS.c.id, sort_by_parameter_order=True)
    return [int(number) for number in connection.execute(statement, [dict(row) for row in rows]).scalars()]


def keep_verdicts(connection: sa.Connection, rows: Sequence[Mapping[str, object]]) -> None:
    """Change columns of verdicts; each row names its ``verdict``, and all rows have the same columns."""
    if rows:
        columns: dict[str, sa.ColumnElement[object]] = {
            name: sa.bindparam(name) for name in rows[0] if name != "verdict"
        }
        statement = VERDICTS.update().where(VERDICTS.c.id == sa.bindparam("verdict")).values(columns)
        connection.execute(statement, [dict(row) for row in rows])


def close_verdicts(connection: sa.Connection, verdicts: Sequence[int], now_ms: int) -> None:
    """Record that verdicts ended at ``now_ms``."""
    if verdicts:
        statement = VERDICTS.update().where(VERDICTS.c.id == sa.bindparam("verdict")).values(closed_ms=now_ms)
        connection.execute(statement, [{"verdict": verdict} for verdict in verdicts])


def stay_verdicts(connection: sa.Connection, verdicts: Sequence[int], window_ms: int) -> None:
    """Record that verdicts are not over in the window that started at ``window_ms``; it does not count as theirs."""
    if verdicts:
        connection.execute(VERDICTS.update().where(VERDICTS.c.id.in_(verdicts)).values(last_window_ms=window_ms))


def join_verdicts(connection: sa.Connection, parts: Sequence[tuple[int, int]]) -> None:
    """Record of verdicts in which one they go on."""
    if parts:
        statement = VERDICTS.update().where(VERDICTS.c.id == sa.bindparam("verdict")).values(
            part_of=sa.bindparam("whole")
        )  # fmt: skip
        connection.execute(statement, [{"verdict": part, "whole": whole} for part, whole in parts])


def open_verdicts(connection: sa.Connection, kind: str = "", release: str = "") -> list[sa.RowMapping]:
    """Return the verdicts that are not closed, oldest first; of a ``kind`` and on a ``release``, "" for any."""
    wanted = {name: value for name, value in (("kind", kind), ("release", release)) if value}
    query = VERDICTS.select().where(VERDICTS.c.closed_ms == 0).filter_by(**wanted)
    return list(connection.execute(query.order_by(VERDICTS.c.id)).mappings())


def parts_of_verdicts(connection: sa.Connection, verdicts: Sequence[int]) -> dict[int, list[int]]:
    """Return the verdicts that go on in each of ``verdicts``, directly or by way of others, oldest first."""
    found: dict[int, list[int]] = {}
    whole = {verdict: verdict for verdict in verdicts}
    left = list(verdicts)
    while left:
        rows = connection.execute(sa.select(VERDICTS.c.id, VERDICTS.c.part_of).where(VERDICTS.c.part_of.in_(left)))
        left = []
        for part, of in rows:
            if part not in whole:
                whole[part] = whole[of]
                found.setdefault(whole[of], []).append(part)
                left.append(part)
    return {verdict: sorted(parts) for verdict, parts in found.items()}


def latest_verdicts(connection: sa.Connection, limit: int) -> list[sa.RowMapping]:
    """Return the newest ``limit`` verdicts, newest first."""
    return list(connection.execute(VERDICTS.select().order_by(VERDICTS.c.id.desc()).limit(limit)).mappings())


def dismiss_verdict(connection: sa.Connection, verdict: int, now_ms: int, *, by: str, why: str) -> bool:
    """Record that a person dismissed a verdict that is open and was not dismissed before; return whether it was."""
    wanted = (VERDICTS.c.id == verdict, VERDICTS.c.closed_ms == 0, VERDICTS.c.dismissed_ms == 0)
    values = {"dismissed_ms": now_ms, "dismissed_by": by, "dismissed_why": why}
    return bool(connection.execute(VERDICTS.update().where(*wanted).values(values)).rowcount)


def one_verdict(connection: sa.Connection, verdict: int) -> sa.RowMapping | None:
    """Return one verdict."""
    return connection.execute(VERDICTS.select().where(VERDICTS.c.id == verdict)).mappings().first()


def delete_evidence_before(connection: sa.Connection, before_ms: int, limit: int) -> int:
    """Delete the oldest ``limit`` rows of evidence of devices, of slots before ``before_ms``; return how many."""
    return _delete_slots(connection, EVIDENCE, before_ms, limit)


def delete_pool_evidence_before(connection: sa.Connection, before_ms: int, limit: int) -> int:
    """Delete the oldest ``limit`` rows of evidence of pools, of slots before ``before_ms``; return how many."""
    return _delete_slots(connection, POOLS, before_ms, limit)


def _delete_slots(connection: sa.Connection, table: sa.Table, before_ms: int, limit: int) -> int:
    old = sa.select(table.c.id).where(table.c.start_ms < before_ms).order_by(table.c.start_ms).limit(limit)
    return connection.execute(table.delete().where(table.c.id.in_(old.correlate(None)))).rowcount


_FAULT = "device_fault"


def delete_faults_before(connection: sa.Connection, before_ms: int, limit: int) -> int:
    """Delete faults of devices that ended before ``before_ms`` and started no retraining; return how many."""
    return _delete_closed(connection, VERDICTS.c.kind == _FAULT, before_ms, limit)


def delete_verdicts_before(connection: sa.Connection, before_ms: int, limit: int) -> int:
    """Delete verdicts that were closed before ``before_ms`` and started no retraining; return how many."""
    return _delete_closed(connection, sa.true(), before_ms, limit)


def _delete_closed(connection: sa.Connection, which: sa.ColumnElement[bool], before_ms: int, limit: int) -> int:
    started = sa.exists().where(TRIGGERS.c.verdict == VERDICTS.c.id)
    old = (VERDICTS.c.closed_ms > 0, VERDICTS.c.closed_ms < before_ms, which, ~started)
    return delete_some(connection, VERDICTS, limit, *old)
