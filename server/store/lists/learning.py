"""Queries of lists of what is learned from: samples, retrainings and jobs."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa

from server.store.lists.paging import Order, Page, SortKey, equal, read_page
from server.store.retraining import JOBS, SAMPLES, TRIGGERS

_NEWEST = Order("samples", (SortKey(SAMPLES.c.id, int, descending=True),))
_WAITING = Order("samples without a label", (SortKey(SAMPLES.c.id, int),))
_TRIGGERS = Order("retraining", (SortKey(TRIGGERS.c.id, int, descending=True),))
_JOBS = Order("jobs", (SortKey(JOBS.c.created_ms, int, descending=True), SortKey(JOBS.c.id, str)))


def sample_page(  # noqa: PLR0913 - a filter and a place in the list
    connection: sa.Connection, *, unlabelled: bool, device: str, model: str, lane: str, label: str, limit: int,
    cursor: str | None,
) -> Page[sa.RowMapping]:  # fmt: skip
    """Return a page of samples, newest first; with ``unlabelled``, each image of a model once, oldest first.

    It is not counted.

    Raises:
        CursorRefusedError: If ``cursor`` is of another list.
    """
    query = SAMPLES.select().where(
        SAMPLES.c.expired_ms == 0, *equal(SAMPLES, device=device, model=model, lane=lane, label=label)
    )  # fmt: skip
    if unlabelled:
        waiting = sa.and_(SAMPLES.c.label.is_(None), SAMPLES.c.expired_ms == 0)
        first = sa.select(sa.func.min(SAMPLES.c.id)).where(waiting).group_by(SAMPLES.c.model, SAMPLES.c.sha256)
        query = query.where(SAMPLES.c.id.in_(first))
    return read_page(connection, query, _WAITING if unlabelled else _NEWEST, limit, cursor, counted=False)


def trigger_page(
    connection: sa.Connection, *, model: str, phase: str, limit: int, cursor: str | None, first: Collection[str] = (),
) -> Page[sa.RowMapping]:  # fmt: skip
    """Return a page of retrainings, newest first; "" for any; ``first``: phases of those that come before all others.

    Raises:
        CursorRefusedError: If ``cursor`` is of another list.
    """
    query, order = TRIGGERS.select().where(*equal(TRIGGERS, model=model, phase=phase)), _TRIGGERS
    if first:
        later = sa.case((TRIGGERS.c.phase.in_(sorted(first)), 0), else_=1)
        order = Order("retraining, some first", (SortKey(later, int), *_TRIGGERS.keys))
    return read_page(connection, query, order, limit, cursor)


def job_page(
    connection: sa.Connection, *, model: str, state: str, limit: int, cursor: str | None
) -> Page[sa.RowMapping]:  # fmt: skip
    """Return a page of training jobs, newest first; "" for any.

    Raises:
        CursorRefusedError: If ``cursor`` is of another list.
    """
    return read_page(connection, JOBS.select().where(*equal(JOBS, model=model, state=state)), _JOBS, limit, cursor)
