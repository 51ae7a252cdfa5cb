"""``/events``: the newest entries of the log."""

from __future__ import annotations

from functools import partial

from fastapi import Request, Response
from nicegui import ui

from server.dashboard.services import Services
from server.dashboard.session import Sessions
from server.dashboard.tables import Column, live_table
from server.dashboard.theme import frame, heading
from server.dashboard.views import EventRow, event_row

_SHOWN = 300
COLUMNS = (
    Column("at", "Time (UTC)"),
    Column("severity", "Severity", "pill"),
    Column("device", "Device", "device"),
    Column("what", "What"),
    Column("text", "Text", "wrapped", sortable=False),
)


def add_page(services: Services, sessions: Sessions) -> None:
    """Add the page."""

    def look() -> tuple[EventRow, ...]:
        return tuple(event_row(event) for event in services.events.latest(_SHOWN))

    @ui.page("/events")
    def page(request: Request) -> Response | None:
        if (refusal := sessions.refusal(request)) is not None:
            return refusal
        with frame("Events", "/events", partial(sessions.is_open, request)):
            heading("Events", 1)
            ui.label(f"The newest {_SHOWN}; more by GET /api/events.").classes("tf-muted")
            live_table(COLUMNS, "id", look, rows_per_page=50)
        return None
