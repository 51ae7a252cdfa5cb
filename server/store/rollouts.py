"""Tables and queries of rollouts: their members, the verdicts that paused one, and what was ever assigned."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from server.store.database import METADATA, delete_some
from server.store.monitoring.evidence import VERDICTS
from server.store.registry import RELEASES

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
    sa.Column("window", sa.Text, nullable=False, default="", server_default=""),
    sa.Column("shadow", sa.Text, nullable=False, default="", server_default=""),
    sa.Column("max_bytes_per_s", sa.BigInteger, nullable=False, default=0, server_default="0"),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("updated_ms", sa.BigInteger, nullable=False),
    sa.Column("cautions", sa.Text, nullable=False, default="", server_default=""),
    sa.Column("scope", sa.Text, nullable=False, default="", server_default=""),
    sa.Column("created_by", sa.String(100), nullable=False, default="", server_default=""),
    sa.Column("approvals", sa.Text, nullable=False, default="", server_default=""),
    sa.Column("change", sa.BigInteger, nullable=False, default=0, onupdate=sa.text("change + 1"), server_default="0"),
)
"""``change`` grows with each change of a rollout or of its members: one with a known number need not be read again."""

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
    sa.Column("earlier_bytes", sa.BigInteger, nullable=False, default=0, server_default="0"),
    sa.Column("bundle_bytes", sa.BigInteger, nullable=False, default=0, server_default="0"),
    sa.Column("before", sa.Text, nullable=False, default=""),
    sa.Column("tolerated", sa.Boolean, nullable=False, default=False),
    sa.Column("replaced_by", sa.String(100), nullable=False, default="", server_default=""),
    sa.Column("retried_from", sa.String(32), nullable=False, default="", server_default=""),
    sa.Column("shadow", sa.Text, nullable=False, default="", server_default=""),
    sa.Column("replay", sa.Text, nullable=False, default="", server_default=""),
    sa.Column("answered", sa.BigInteger),
    sa.Column("forecast_bytes", sa.BigInteger),
    sa.Column("forecast_upper", sa.Boolean, nullable=False, default=False, server_default=sa.false()),
    sa.Column("change", sa.BigInteger, nullable=False, default=0, server_default="0"),
    sa.Index("members_by_change", "rollout", "change"),
)
"""``change``: the number of the rollout when the member last changed."""

_MEMBER_COLUMNS = tuple(column for column in MEMBERS.c if column.name != "change")


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


def rollouts_named(connection: sa.Connection, rollouts: Sequence[str]) -> list[sa.RowMapping]:
    """Return those of ``rollouts``, by id, that there are."""
    return list(connection.execute(ROLLOUTS.select().where(ROLLOUTS.c.id.in_(list(rollouts)))).mappings())


def members_of(connection: sa.Connection, rollouts: Sequence[str]) -> Iterator[sa.Row[Any]]:
    """Yield the members of ``rollouts``, by group and device, with the columns in the order of the table.

    Plain rows, without ``change``: mappings of a hundred thousand members take as long as reading them.
    """
    query = sa.select(*_MEMBER_COLUMNS).where(MEMBERS.c.rollout.in_(list(rollouts)))
    yield from connection.execute(query.order_by(MEMBERS.c.rollout, MEMBERS.c.group, MEMBERS.c.device))


def members_changed(connection: sa.Connection, rollout: str, above: int) -> Iterator[sa.Row[Any]]:
    """Yield the members of ``rollout`` that came or changed after its number was ``above``, as ``members_of`` does.

    A transaction holds the rollout's row from the draw of its number to its end, so none ends after a later one.
    """
    query = sa.select(*_MEMBER_COLUMNS).where(MEMBERS.c.rollout == rollout, MEMBERS.c.change > above)
    yield from connection.execute(query.order_by(MEMBERS.c.group, MEMBERS.c.device))


def insert_rollout(
    connection: sa.Connection, row: Mapping[str, object], members: Sequence[Mapping[str, object]]
) -> None:
    """Add a rollout with its members."""
    connection.execute(ROLLOUTS.insert(), dict(row))
    insert_members(connection, members)


def insert_members(connection: sa.Connection, members: Sequence[Mapping[str, object]]) -> None:
    """Add members."""
    if members:
        rollouts = {str(member["rollout"]) for member in members}
        _count_change(connection, rollouts)
        named = sa.select(ROLLOUTS.c.id, ROLLOUTS.c.change).where(ROLLOUTS.c.id.in_(rollouts))
        numbers = {row.id: row.change for row in connection.execute(named)}
        rows = [{**member, "change": numbers[str(member["rollout"])]} for member in members]
        connection.execute(MEMBERS.insert(), rows)


def update_rollout(connection: sa.Connection, rollout: str, changes: Mapping[str, object]) -> None:
    """Change columns of one rollout."""
    connection.execute(ROLLOUTS.update().where(ROLLOUTS.c.id == rollout).values(dict(changes)))


def update_member(connection: sa.Connection, rollout: str, device: str, changes: Mapping[str, object]) -> None:
    """Change columns of one member."""
    _count_change(connection, {rollout})  # first: see members_changed
    number = sa.select(ROLLOUTS.c.change).where(ROLLOUTS.c.id == rollout).scalar_subquery()
    where = (MEMBERS.c.rollout == rollout, MEMBERS.c.device == device)
    connection.execute(MEMBERS.update().where(*where).values({**changes, "change": number}))


def _count_change(connection: sa.Connection, rollouts: Collection[str]) -> None:
    connection.execute(ROLLOUTS.update().where(ROLLOUTS.c.id.in_(rollouts)).values(change=ROLLOUTS.c.change + 1))


PAUSED = sa.Table(
    "paused_for",
    METADATA,
    sa.Column("verdict", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
)


def paused_for(connection: sa.Connection) -> set[int]:
    """Return the ids of the verdicts that have been handled."""
    return set(connection.execute(sa.select(PAUSED.c.verdict)).scalars())


def note_paused_for(connection: sa.Connection, verdict: int, at_ms: int) -> None:
    """Record that a verdict has been handled."""
    connection.execute(PAUSED.insert(), {"verdict": verdict, "at_ms": at_ms})


def delete_paused_before(connection: sa.Connection, before_ms: int, limit: int) -> int:
    """Delete what was recorded before ``before_ms`` of verdicts that are gone; return how many."""
    known = sa.exists().where(VERDICTS.c.id == PAUSED.c.verdict)
    return delete_some(connection, PAUSED, limit, PAUSED.c.at_ms < before_ms, ~known)


def was_assigned(connection: sa.Connection, device: str, sha256: str) -> bool:
    """Return whether a rollout assigned the bundle ``sha256`` to ``device``, or set the device back to it."""
    told = (MEMBERS.c.device == device, MEMBERS.c.assigned_ms > 0)
    by_rollout = (
        sa.select(MEMBERS.c.rollout)
        .join(ROLLOUTS, ROLLOUTS.c.id == MEMBERS.c.rollout)
        .join(RELEASES, RELEASES.c.name == ROLLOUTS.c.release)
        .where(*told, RELEASES.c.sha256 == sha256)
    )
    before = sa.select(MEMBERS.c.rollout).where(*told, MEMBERS.c.before.contains(sha256, autoescape=True))
    return connection.execute(sa.union_all(by_rollout, before).limit(1)).first() is not None
