"""The query of the list of events, the newest first."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from server.store.events import EVENTS
from server.store.lists.paging import Order, Page, SortKey, equal, read_page

_NEWEST = Order("events", (SortKey(EVENTS.c.id, int, descending=True),))


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events; "" is not set. ``search``: words in the text, each of them, in any case."""

    device: str = ""
    record: str = ""
    kind: str = ""
    code: str = ""
    severity: str = ""
    search: str = ""


def event_page(
    connection: sa.Connection, wanted: EventFilter, *, limit: int, cursor: str | None
) -> Page[sa.RowMapping]:  # fmt: skip
    """Return a page of events; it is not counted.

    Raises:
        CursorRefusedError: If ``cursor`` is of another list.
    """
    where = equal(
        EVENTS, device=wanted.device, record=wanted.record, kind=wanted.kind, code=wanted.code,
        severity=wanted.severity,
    )  # fmt: skip
    where += [EVENTS.c.text.icontains(word, autoescape=True) for word in wanted.search.split()]
    if "\0" in wanted.search:
        where.append(sa.false())  # no stored text has it
    return read_page(connection, EVENTS.select().where(*where), _NEWEST, limit, cursor, counted=False)
