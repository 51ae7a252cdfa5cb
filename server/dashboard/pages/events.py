"""``/events``: the newest entries of the log."""

from __future__ import annotations

from nicegui import ui

from server.dashboard.theme import Column, live_table
from server.dashboard.views import EventRow, event_row
from server.dashboard.visit import Pages, Visit

_SHOWN = 300
COLUMNS = (
    Column(name="at", label="Time (UTC)"),
    Column(name="severity", label="Severity", look="pill"),
    Column(name="device", label="Device", look="device"),
    Column(name="what", label="What"),
    Column(name="text", label="Text", look="wrapped", sortable=False),
)


def add_page(pages: Pages) -> None:
    """Add the page."""
    pages.add("/events", "Events", _build)


def _build(visit: Visit) -> None:
    def look() -> tuple[EventRow, ...]:
        return tuple(event_row(event) for event in visit.services.events.latest(_SHOWN))

    ui.label(f"The newest {_SHOWN}; more by GET /api/events.").classes("tf-muted")
    live_table(COLUMNS, "id", look, rows_per_page=50)
