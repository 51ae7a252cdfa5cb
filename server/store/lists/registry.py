"""The query of the list of releases, in the order of registration."""

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
