"""Queries that count the members of rollouts in the database; a rollout has thousands of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import sqlalchemy as sa

from server.store.rollouts import MEMBERS

_COLUMNS = tuple(column for column in MEMBERS.c if column.name != "change")
_FAILED, _STUCK, _COMMITTED, _CANCELLED = "failed", "stuck", "committed", "cancelled"
_AWAITED = ("waiting", "assigning", "assigned")


def _count(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    return sa.func.sum(sa.case((condition, 1), else_=0))


def _sum(value: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
    return sa.cast(sa.func.sum(value), sa.BigInteger)


def counted_members(connection: sa.Connection, rollouts: Collection[str], removed: str) -> list[sa.RowMapping]:
    """Return how many members each group of ``rollouts`` has, by standing and otherwise, and their bytes.

    ``removed``: the code of a cancelled member that left the fleet. ``blind``: assigned the release without a forecast.
    """
    column = MEMBERS.c
    standing = column.standing
    stuck = sa.or_(standing == _STUCK, sa.and_(standing == _FAILED, column.code == _STUCK))  # the latter: older rows
    in_vain, replaced = standing.in_((_FAILED, _STUCK)), column.replaced_by != ""
    query = sa.select(
        column.rollout, column.group, sa.func.count().label("size"),
        _count(standing == _COMMITTED).label("committed"),
        _count(sa.and_(standing == _FAILED, column.code != _STUCK)).label("failed"), _count(stuck).label("stuck"),
        _count(standing.in_(_AWAITED)).label("awaited"), _count(standing == "pending").label("pending"),
        _count(sa.and_(column.tolerated, in_vain)).label("tolerated"),
        _count(sa.and_(replaced, in_vain)).label("judged_without"), _count(replaced).label("replaced"),
        _count(sa.and_(standing == _CANCELLED, column.code == removed)).label("removed"),
        _count(sa.and_(standing == _COMMITTED, column.answered == 0)).label("unanswered"),
        _sum(column.air_bytes).label("air_bytes"), _sum(column.bundle_bytes).label("bundle_bytes"),
        _sum(sa.func.coalesce(column.forecast_bytes, 0)).label("forecast_bytes"),
        _count(column.forecast_upper).label("forecast_upper"),
        _count(sa.and_(column.gen > 0, column.forecast_bytes.is_(None))).label("blind"),
    ).where(column.rollout.in_(rollouts)).group_by(column.rollout, column.group)  # fmt: skip
    return list(connection.execute(query.order_by(column.rollout, column.group)).mappings())


def outcomes_in_order(connection: sa.Connection, rollouts: Collection[str]) -> Iterator[sa.Row[str, int, str]]:
    """Yield (rollout, group, standing) of the members that are judged, as they were assigned the release."""
    column = MEMBERS.c
    query = sa.select(column.rollout, column.group, column.standing).where(
        column.rollout.in_(rollouts), column.standing.in_((_COMMITTED, _FAILED, _STUCK, "assigning", "assigned")),
        ~column.tolerated, column.replaced_by == "",
    )  # fmt: skip
    yield from connection.execute(query.order_by(column.rollout, column.assigned_ms, column.device))


def compared_members(connection: sa.Connection, rollouts: Collection[str]) -> Iterator[sa.Row[str, int, str, str]]:
    """Yield (rollout, group, shadow, replay) of the members that have one of the two, by group and device."""
    column = MEMBERS.c
    query = sa.select(column.rollout, column.group, column.shadow, column.replay).where(
        column.rollout.in_(rollouts), sa.or_(column.shadow != "", column.replay != "")
    )
    yield from connection.execute(query.order_by(column.rollout, column.group, column.device))


def first_members(connection: sa.Connection, rollout: str, group: int, limit: int) -> Iterator[sa.Row[Any]]:
    """Yield the first ``limit`` members of a group, as ``rollouts.members_of`` does."""
    query = sa.select(*_COLUMNS).where(MEMBERS.c.rollout == rollout, MEMBERS.c.group == group)
    yield from connection.execute(query.order_by(MEMBERS.c.device).limit(limit))
