"""Queries of lists of rollouts and of their members, a page at a time."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import sqlalchemy as sa

from server.store.lists.paging import Order, Page, SortKey, read_page
from server.store.rollouts import MEMBERS, ROLLOUTS

_NEWEST = Order("rollouts", (SortKey(ROLLOUTS.c.created_ms, int, descending=True), SortKey(ROLLOUTS.c.id, str)))
_BY_GROUP = Order("members", (SortKey(MEMBERS.c.group, int), SortKey(MEMBERS.c.device, str)))
_FAILED, _STUCK = "failed", "stuck"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberFilter:
    """Which members of a rollout; "" and None are not set. ``search``: part of the device's id, in any case."""

    search: str = ""
    standing: str = ""
    code: str = ""
    group: int | None = None


def rollout_page(
    connection: sa.Connection, *, phase: str, release: str, limit: int, cursor: str | None,
    first: Collection[str] = (),
) -> Page[sa.RowMapping]:  # fmt: skip
    """Return a page of rollouts, newest first; ``phase`` and ``release``: "" for any.

    ``first``: phases of rollouts that come before all others.

    Raises:
        CursorRefusedError: If ``cursor`` is of another list.
    """
    query = ROLLOUTS.select()
    if phase:
        query = query.where(ROLLOUTS.c.phase == phase)
    if release:
        query = query.where(ROLLOUTS.c.release == release)
    order = _NEWEST
    if first:
        later = sa.case((ROLLOUTS.c.phase.in_(sorted(first)), 0), else_=1)
        order = Order("rollouts, some first", (SortKey(later, int), *_NEWEST.keys))
    return read_page(connection, query, order, limit, cursor)


def member_page(
    connection: sa.Connection, rollout: str, wanted: MemberFilter, *, limit: int, cursor: str | None
) -> Page[sa.RowMapping]:  # fmt: skip
    """Return a page of the members of a rollout, by group and device.

    Raises:
        CursorRefusedError: If ``cursor`` is of another list.
    """
    query = MEMBERS.select().where(MEMBERS.c.rollout == rollout)
    if wanted.standing:
        stuck = MEMBERS.c.code == _STUCK  # older rows have stuck as a failure with this code
        query = query.where({
            _FAILED: sa.and_(MEMBERS.c.standing == _FAILED, ~stuck),
            _STUCK: sa.or_(MEMBERS.c.standing == _STUCK, sa.and_(MEMBERS.c.standing == _FAILED, stuck)),
        }.get(wanted.standing, MEMBERS.c.standing == wanted.standing))  # fmt: skip
    if wanted.code:
        query = query.where(MEMBERS.c.code == wanted.code)
    if wanted.group is not None:
        query = query.where(MEMBERS.c.group == wanted.group)
    if wanted.search:
        query = query.where(MEMBERS.c.device.icontains(wanted.search, autoescape=True))
    if "\0" in f"{wanted.search}{wanted.standing}{wanted.code}":
        query = query.where(sa.false())  # no stored text has it
    return read_page(connection, query, _BY_GROUP, limit, cursor)
