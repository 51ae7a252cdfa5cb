"""Queries of lists of drift: evidence, pools, verdicts, places and commissions, the newest first."""

from __future__ import annotations

import json

import sqlalchemy as sa

from server.store.commissions import COMMISSIONS
from server.store.lists.paging import Order, Page, SortKey, equal, read_page
from server.store.monitoring.evidence import EVIDENCE, POOLS, VERDICTS
from server.store.places import PLACES

_EVIDENCE = Order("evidence", (
    SortKey(EVIDENCE.c.start_ms, int, descending=True), SortKey(EVIDENCE.c.device, str), SortKey(EVIDENCE.c.id, int),
))  # fmt: skip
_POOLS = Order("pools", (
    SortKey(POOLS.c.start_ms, int, descending=True), SortKey(POOLS.c.attribute, str), SortKey(POOLS.c.value, str),
    SortKey(POOLS.c.id, int),
))  # fmt: skip
_VERDICTS = Order("verdicts", (SortKey(VERDICTS.c.id, int, descending=True),))
_PLACES = Order("places", (SortKey(PLACES.c.verdict, int, descending=True),))
_COMMISSIONS = Order("commissions", (SortKey(COMMISSIONS.c.id, int, descending=True),))


def evidence_page(
    connection: sa.Connection, *, device: str, limit: int, cursor: str | None
) -> Page[sa.RowMapping]:  # fmt: skip
    """Return a page of the evidence of one device, "" for all; it is not counted.

    Raises:
        CursorRefusedError: If ``cursor`` is of another list.
    """
    query = EVIDENCE.select().where(*equal(EVIDENCE, device=device))
    return read_page(connection, query, _EVIDENCE, limit, cursor, counted=False)


def pool_page(
    connection: sa.Connection, *, attribute: str = "", value: str = "", limit: int, cursor: str | None = None
) -> Page[sa.RowMapping]:  # fmt: skip
    """Return a page of the evidence of pools, "" for any; it is not counted.

    Raises:
        CursorRefusedError: If ``cursor`` is of another list.
    """
    query = POOLS.select().where(*equal(POOLS, attribute=attribute, value=value))
    return read_page(connection, query, _POOLS, limit, cursor, counted=False)


def verdict_page(  # noqa: PLR0913 - a filter and a place in the list
    connection: sa.Connection, *, is_open: bool | None, kind: str, model: str, release: str, device: str, limit: int,
    cursor: str | None,
) -> Page[sa.RowMapping]:  # fmt: skip
    """Return a page of verdicts; ``is_open``: only those that are, or are not; "" for any of the others.

    Raises:
        CursorRefusedError: If ``cursor`` is of another list.
    """
    where = equal(VERDICTS, kind=kind, model=model, release=release)
    if is_open is not None:
        where.append((VERDICTS.c.closed_ms == 0) == is_open)
    if device:
        where.append(sa.cast(VERDICTS.c.devices, sa.Text).contains(json.dumps(device), autoescape=True))
    return read_page(connection, VERDICTS.select().where(*where), _VERDICTS, limit, cursor)


def place_page(
    connection: sa.Connection, *, device: str, site: str, state: str, limit: int, cursor: str | None
) -> Page[sa.RowMapping]:  # fmt: skip
    """Return a page of places, the newest verdict first; "" for any.

    Raises:
        CursorRefusedError: If ``cursor`` is of another list.
    """
    query = PLACES.select().where(*equal(PLACES, device=device, site=site, state=state))
    return read_page(connection, query, _PLACES, limit, cursor)


def commission_page(
    connection: sa.Connection, *, device: str, limit: int, cursor: str | None
) -> Page[sa.RowMapping]:  # fmt: skip
    """Return a page of commissions, "" for those of any device.

    Raises:
        CursorRefusedError: If ``cursor`` is of another list.
    """
    return read_page(
        connection, COMMISSIONS.select().where(*equal(COMMISSIONS, device=device)), _COMMISSIONS, limit, cursor
    )  # fmt: skip
