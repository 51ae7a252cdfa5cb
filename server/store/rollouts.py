"""Tables and queries of rollouts and their members."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from server.store.database import METADATA

ROLLOUTS = sa.Table(
    "rollouts",
    METADATA,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("release", sa.String(200), nullable=False),
    sa.Column("groups", sa.JSON, nullable=False),
    sa.Column("phase", sa.String(32), nullable=False, index=True),
    sa.Column("code", sa.String(64), nullable=False, default=""),
    sa.Column("text", sa.Text, nullable=False, default=""),
    sa.Column("opened", sa.Integer, nullable=False, default=0),
    sa.Column("probation_s", sa.Float, nullable=False),
    sa.Column("deadline_s", sa.Float, nullable=False),
    sa.Column("dynamic", sa.Boolean, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("updated_ms", sa.BigInteger, nullable=False),
)

MEMBERS = sa.Table(
    "rollout_members",
    METADATA,
    sa.Column("rollout", sa.String(32), sa.ForeignKey("rollouts.id"), primary_key=True),
    sa.Column("device", sa.String(63), primary_key=True),
    sa.Column("group", sa.Integer, nullable=False),
    sa.Column("standing", sa.String(32), nullable=False),
    sa.Column("gen", sa.BigInteger, nullable=False, default=0),
    sa.Column("assigned_ms", sa.BigInteger, nullable=False, default=0),
    sa.Column("settled_ms", sa.BigInteger, nullable=False, default=0),
    sa.Column("code", sa.String(64), nullable=False, default=""),
    sa.Column("air_bytes", sa.BigInteger, nullable=False, default=0),
    sa.Column("before", sa.Text, nullable=False, default=""),
    sa.Column("tolerated", sa.Boolean, nullable=False, default=False),
    sa.Column("replaced_by", sa.String(100), nullable=False, default="", server_default=""),
    sa.Column("retried_from", sa.String(32), nullable=False, default="", server_default=""),
)


def all_rollouts(connection: sa.Connection) -> list[sa.RowMapping]:
    """Return every rollout, newest first."""
    return list(connection.execute(ROLLOUTS.select().order_by(ROLLOUTS.c.created_ms.desc(), ROLLOUTS.c.id)).mappings())


def newest_rollout(connection: sa.Connection) -> sa.RowMapping | None:
    """Return the rollout that was created last."""
    query = ROLLOUTS.select().order_by(ROLLOUTS.c.created_ms.desc(), ROLLOUTS.c.id).limit(1)
    return connection.execute(query).mappings().first()


def rollouts_in(connection: sa.Connection, phases: Sequence[str]) -> list[sa.RowMapping]:
    """Return the rollouts in one of ``phases``, oldest first."""
    query = ROLLOUTS.select().where(ROLLOUTS.c.phase.in_(list(phases)))
    return list(connection.execute(query.order_by(ROLLOUTS.c.created_ms, ROLLOUTS.c.id)).mappings())


def one_rollout(connection: sa.Connection, rollout: str) -> sa.RowMapping | None:
    """Return one rollout."""
    return connection.execute(ROLLOUTS.select().where(ROLLOUTS.c.id == rollout)).mappings().first()


def members_of(connection: sa.Connection, rollouts: Sequence[str]) -> list[sa.RowMapping]:
    """Return the members of ``rollouts``, by group and device."""
    query = MEMBERS.select().where(MEMBERS.c.rollout.in_(list(rollouts)))
    return list(connection.execute(query.order_by(MEMBERS.c.rollout, MEMBERS.c.group, MEMBERS.c.device)).mappings())


def insert_rollout(
    connection: sa.Connection, row: Mapping[str, object], members: Sequence[Mapping[str, object]]
) -> None:
    """Add a rollout with its members."""
    connection.execute(ROLLOUTS.insert(), dict(row))
    insert_members(connection, members)


def insert_members(connection: sa.Connection, members: Sequence[Mapping[str, object]]) -> None:
    """Add members."""
    if members:
        connection.execute(MEMBERS.insert(), [dict(member) for member in members])


def update_rollout(connection: sa.Connection, rollout: str, changes: Mapping[str, object]) -> None:
    """Change columns of one rollout."""
    connection.execute(ROLLOUTS.update().where(ROLLOUTS.c.id == rollout).values(dict(changes)))


def update_member(connection: sa.Connection, rollout: str, device: str, changes: Mapping[str, object]) -> None:
    """Change columns of one member."""
    where = (MEMBERS.c.rollout == rollout, MEMBERS.c.device == device)
    connection.execute(MEMBERS.update().where(*where).values(dict(changes)))
