"""From when on baselines of a device began anew: by commissions, with who said so and why, and by changes of model.

A change of model ends the baselines under other models: a device that returns to one begins anew there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from server.store.database import METADATA, delete_some

COMMISSIONS = sa.Table(
    "commissions",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("device", sa.String(63), nullable=False, index=True),
    sa.Column("from_ms", sa.BigInteger, nullable=False),
    sa.Column("attribute", sa.String(127), nullable=False),
    sa.Column("value", sa.String(127), nullable=False),
    sa.Column("decided_ms", sa.BigInteger, nullable=False),
    sa.Column("decided_by", sa.String(100), nullable=False),
    sa.Column("why", sa.String(500), nullable=False),
    sqlite_autoincrement=True,
)


def insert_commissions(connection: sa.Connection, rows: Sequence[Mapping[str, object]]) -> list[int]:
    """Add commissions; return their ids in the same order."""
    statement = COMMISSIONS.insert().returning(COMMISSIONS.c.id, sort_by_parameter_order=True)
    return [int(number) for number in connection.execute(statement, [dict(row) for row in rows]).scalars()]


def all_commissions(connection: sa.Connection, device: str | None = None) -> list[sa.RowMapping]:
    """Return every commission (of one device), the newest first."""
    query = COMMISSIONS.select().order_by(COMMISSIONS.c.id.desc())
    if device is not None:
        query = query.where(COMMISSIONS.c.device == device)
    return list(connection.execute(query).mappings())


def moments(connection: sa.Connection) -> list[tuple[str, int]]:
    """Return the device and the moment (UTC ms) of every commission."""
    rows = connection.execute(sa.select(COMMISSIONS.c.device, COMMISSIONS.c.from_ms))
    return [(str(device), int(from_ms)) for device, from_ms in rows]


def newest_moments(connection: sa.Connection) -> dict[str, int]:
    """Return the moment (UTC ms) of the newest commission of each device that has one."""
    query = sa.select(COMMISSIONS.c.device, sa.func.max(COMMISSIONS.c.from_ms)).group_by(COMMISSIONS.c.device)
    return {str(device): int(from_ms) for device, from_ms in connection.execute(query)}


def delete_commissions_before(connection: sa.Connection, before_ms: int, limit: int) -> int:
    """Delete commissions before ``before_ms`` that a later one of the same device has replaced; return how many.

    The newest of each device stays: it says which baseline is the device's.
    """
    later = COMMISSIONS.alias()
    replaced = sa.exists().where(
        later.c.device == COMMISSIONS.c.device, later.c.from_ms >= COMMISSIONS.c.from_ms, later.c.id > COMMISSIONS.c.id,
        later.c.from_ms < before_ms,
    )  # fmt: skip
    return delete_some(connection, COMMISSIONS, limit, replaced)


MODEL_CHANGES = sa.Table(
    "model_changes",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("device", sa.String(63), nullable=False, index=True),
    sa.Column("model", sa.String(127), nullable=False),
    sa.Column("from_ms", sa.BigInteger, nullable=False),
)


def insert_model_change(connection: sa.Connection, row: Mapping[str, object]) -> None:
    """Record that a device keeps another model from ``from_ms`` on."""
    connection.execute(MODEL_CHANGES.insert(), dict(row))


def newest_model(connection: sa.Connection, device: str) -> str:
    """Return the model to which ``device`` changed last, "" if it never did."""
    query = sa.select(MODEL_CHANGES.c.model).where(MODEL_CHANGES.c.device == device)
    return connection.execute(query.order_by(MODEL_CHANGES.c.id.desc()).limit(1)).scalar() or ""


def model_changes(connection: sa.Connection) -> list[tuple[str, str, int]]:
    """Return the device, the model and the moment (UTC ms) of every change."""
    columns = MODEL_CHANGES.c.device, MODEL_CHANGES.c.model, MODEL_CHANGES.c.from_ms
    rows = connection.execute(sa.select(*columns))
    return [(str(device), str(model), int(from_ms)) for device, model, from_ms in rows]


def delete_model_changes_before(connection: sa.Connection, before_ms: int, limit: int) -> int:
    """Delete changes before ``before_ms`` that a later one of the device to the same model replaced; return how many.

    The newest to each model stay: they say which baselines are the device's.
    """
    later = MODEL_CHANGES.alias()
    replaced = sa.exists().where(
        later.c.device == MODEL_CHANGES.c.device, later.c.model == MODEL_CHANGES.c.model,
        later.c.id > MODEL_CHANGES.c.id, later.c.from_ms < before_ms,
    )  # fmt: skip
    return delete_some(connection, MODEL_CHANGES, limit, replaced)
