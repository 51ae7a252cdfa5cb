"""The queries of lists of releases: of each target in the order of registration, and by name, newest first."""

from __future__ import annotations

import sqlalchemy as sa

from server.store.lists.paging import Order, Page, SortKey, equal, read_page
from server.store.registry import RELEASES

_OLDEST = Order("releases", (SortKey(RELEASES.c.registered_ms, int), SortKey(RELEASES.c.path, str)))


def release_page(
    connection: sa.Connection, *, name: str, search: str, withdrawn: bool | None, limit: int, cursor: str | None
) -> Page[sa.RowMapping]:  # fmt: skip
    """Return a page of releases; ``search``: a part of the name; ``withdrawn``: only those that are, or are not.

    Raises:
        CursorRefusedError: If ``cursor`` is of another list.
    """
    where = equal(RELEASES, name=name)
    if withdrawn is not None:
        where.append((RELEASES.c.withdrawn_ms > 0) == withdrawn)
    if search:
        where.append(RELEASES.c.name.icontains(search, autoescape=True) if "\0" not in search else sa.false())
    return read_page(connection, RELEASES.select().where(*where), _OLDEST, limit, cursor)


def named_release_page(
    connection: sa.Connection, *, search: str, withdrawn: bool | None, limit: int, cursor: str | None
) -> Page[sa.RowMapping]:  # fmt: skip
    """Return a page of releases, one row a name, the newest first.

    A row has ``name``, ``first_ms`` (when its first target was published), ``withdrawn_ms`` and the number of
    ``targets``; the filters are those of ``release_page``.

    Raises:
        CursorRefusedError: If ``cursor`` is of another list.
    """
    grouped = sa.select(
        RELEASES.c.name, sa.func.min(RELEASES.c.registered_ms).label("first_ms"),
        sa.func.max(RELEASES.c.withdrawn_ms).label("withdrawn_ms"), sa.func.count().label("targets"),
    ).group_by(RELEASES.c.name).subquery()  # fmt: skip
    order = Order("releases by name", (SortKey(grouped.c.first_ms, int, descending=True), SortKey(grouped.c.name, str)))
    query = grouped.select()
    if withdrawn is not None:
        query = query.where((grouped.c.withdrawn_ms > 0) == withdrawn)
    if search:
        query = query.where(grouped.c.name.icontains(search, autoescape=True) if "\0" not in search else sa.false())
    return read_page(connection, query, order, limit, cursor)
