"""``GET /api/events``: the event log, for people and for programs that follow it."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, JsonValue

from server.api.auth import Auth
from server.api.values import StoredNumber, ValueBody
from server.registry.events import EventLog


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


class EventsBody(BaseModel):
    """Events, oldest first, each device's own in the order of its boots and numbers.

    Continue with ``after`` = ``last_id``, the highest id among them.
    """

    events: list[EventBody]
    last_id: int


def router(auth: Auth, events: EventLog) -> APIRouter:
    """Return the routes for viewers."""
    routes = APIRouter(tags=["events"], dependencies=[Depends(auth.view)])

    @routes.get("/api/events")
    def list_events(
        after: StoredNumber | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 200,
        device: str | None = None, record: Literal["act", "telemetry"] | None = None,
    ) -> EventsBody:  # fmt: skip
        """Return the events after an id, or without one the newest events; oldest first.

        ``record=act``: those that stay when telemetry is deleted.
        """
        if after is None:
            found = tuple(reversed(events.latest(limit, device=device, record=record)))
        else:
            found = events.after(after, limit, device=device, record=record)
        last_id = max((event.id for event in found), default=after or 0)
        return EventsBody(events=[EventBody.of(event) for event in found], last_id=last_id)

    return routes
