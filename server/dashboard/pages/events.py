"""``/events``: the log, newest first, a page at a time, by filters in the address."""

from __future__ import annotations

from functools import partial

from server.dashboard.listing import (
    CURSOR,
    FilterField,
    SharedLook,
    filter_form,
    page_ends,
    pager,
    refused,
    values_of,
)
from server.dashboard.services import Services
from server.dashboard.theme import Column, empty, live_apart, live_table_apart
from server.dashboard.views import EventRow, event_row
from server.dashboard.visit import Pages, Visit
from server.store.lists.events import EventFilter
from server.store.lists.paging import Page
from wire.messages import Severity

_SHOWN = 100
COLUMNS = (
    Column(name="at", label="Time (UTC)", sortable=False),
    Column(name="severity", label="Severity", look="pill", sortable=False),
    Column(name="device", label="Device", look="device", sortable=False),
    Column(name="what", label="What", sortable=False),
    Column(name="text", label="Text", look="wrapped", sortable=False),
)
FIELDS = (
    FilterField(name="search", label="Search the text"),
    FilterField(name="device", label="Device"),
    FilterField(name="kind", label="Kind"),
    FilterField(name="severity", label="Severity", choices={one.value: one.value for one in Severity}),
    FilterField(name="record", label="Record", choices={"act": "acts", "telemetry": "telemetry"}),
)
Asked = tuple[tuple[str, str], ...]


def add_page(pages: Pages) -> None:
    """Add the page."""
    looks: SharedLook[Asked, Page[EventRow]] = SharedLook(partial(event_rows, pages.services))
    pages.add("/events", "Events", partial(_build, looks))


def event_rows(services: Services, asked: Asked) -> Page[EventRow]:
    """Return the page of events at an address.

    Raises:
        CursorRefusedError: If its cursor is not of such a list.
    """
    values = {name: value for name, value in asked if name != CURSOR}
    return services.events.page(EventFilter(**values), limit=_SHOWN, cursor=dict(asked).get(CURSOR)).of(event_row)


def _build(looks: SharedLook[Asked, Page[EventRow]], visit: Visit) -> None:
    values, wrong = values_of(visit.request.query_params, FIELDS)
    filter_form("/events", FIELDS, values)
    look = partial(looks.get, tuple(sorted(values.items())))
    if wrong := wrong or refused(look):
        empty("No such list", f"{wrong}. See all events at the address /events.")
        return

    def show(known: bool) -> None:  # noqa: FBT001 - what one look found
        if known:
            live_table_apart(COLUMNS, "id", lambda at_most_s: look(at_most_s).rows)
        else:
            empty("No event here", "None is as the filters ask: see all events at the address /events.")

    live_apart(lambda at_most_s: bool(look(at_most_s).rows), show)
    live_apart(page_ends(look), lambda found: pager("/events", values, found, "events"))
