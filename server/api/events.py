"""``GET /api/events``: the event log, for people and for programs that follow it."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from fastapi.exceptions import RequestValidationError
from pydantic import JsonValue

from server.api.auth import Auth
from server.api.values import Cursor, Name, PageBody, Search, StoredNumber, ValueBody
from server.registry.events import EventLog, LoggedEvent
from server.store.lists.events import EventFilter
from wire.messages import Severity


class EventBody(ValueBody):
    """One event."""

    id: int
    at_ms: int
    kind: str
    code: str
    severity: str
    text: str
    device: str | None
    boot: str
    seq: int
    record: str
    data: dict[str, JsonValue]


class EventsBody(PageBody):
    """Events, oldest first, each device's own in the order of its boots and numbers.

    To follow the log, continue with ``after`` = ``last_id``, the highest id among them. Without ``after`` they are the
    newest, and ``next`` leads to older ones.
    """

    events: list[EventBody]
    last_id: int


def router(auth: Auth, events: EventLog) -> APIRouter:
    """Return the routes for viewers."""
    routes = APIRouter(tags=["events"], dependencies=[Depends(auth.view)])

    @routes.get("/api/events")
    def list_events(  # noqa: PLR0913 - one argument a parameter of the query
        *,
        after: StoredNumber | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 200,
        device: str | None = None, record: Literal["act", "telemetry"] | None = None, kind: Name = "", code: Name = "",
        severity: Severity | None = None, search: Search = "", cursor: Cursor = None,
    ) -> EventsBody:  # fmt: skip
        """Return the events after an id, or without one the newest events; oldest first.

        ``record=act``: those that stay when telemetry is deleted.
        """
        older: str | None = None
        found: tuple[LoggedEvent, ...]
        if after is None:
            wanted = EventFilter(
                device=device or "", record=record or "", kind=kind, code=code, severity=severity or "", search=search
            )  # fmt: skip
            page = events.page(wanted, limit=limit, cursor=cursor)
            older, found = page.next, page.rows[::-1]
        elif kind or code or severity or search or cursor:
            message = "no such parameter beside after, expected one of limit, device, record"
            raise RequestValidationError([{"loc": ("query", "after"), "msg": message}])
        else:
            found = events.after(after, limit, device=device, record=record)
        last_id = max((event.id for event in found), default=after or 0)
        return EventsBody(events=[EventBody.of(event) for event in found], last_id=last_id, next=older)

    return routes
