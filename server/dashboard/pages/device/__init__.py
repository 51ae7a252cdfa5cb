"""``/device/{id}``: drift evidence over time, the streams behind it, updates and health; what a person can decide.

Each section is a function of one of the modules beside this; a new one is added to ``_page``, or, if only some may use
it, to ``_build``.
"""

from __future__ import annotations

from functools import partial

from fastapi import Request, Response
from nicegui import ui

from server.access.roles import Need
from server.dashboard.pages.device.acts import Accepting, Asking, Calling, Leaving, Muting, Recommissioning
from server.dashboard.pages.device.drift import show_evidence, show_streams
from server.dashboard.pages.device.figures import FiguresOverTime
from server.dashboard.pages.device.head import show_head
from server.dashboard.pages.device.histograms import ChosenWindow, show_histograms
from server.dashboard.pages.device.records import (
    show_answers,
    show_events,
    show_releases,
    show_software,
    show_usage,
)
from server.dashboard.services import Services
from server.dashboard.theme import empty, heading
from server.dashboard.visit import Pages, Visit
from server.errors import UnknownDeviceError


def add_page(pages: Pages) -> None:
    """Add the page."""

    @ui.page("/device/{device}")
    def page(request: Request, device: str) -> Response | None:
        return pages.show(request, "/device", device[:63], partial(_build, device))


def _build(device: str, visit: Visit) -> None:
    try:
        visit.services.fleet.device(device)
    except UnknownDeviceError:
        visit.client.status_code = 404
        empty("No such device", "It may have been spelled differently; the overview lists every device.")
        return
    _page(visit.services, device)
    if visit.may(Need.OPERATE):
        Asking(visit, device).build()
        Accepting(visit, device).build()
        Recommissioning(visit, device).build()
        Calling(visit, device).build()
        Muting(visit, device).build()
        Leaving(visit, device).build()


def _page(services: Services, device: str) -> None:
    chosen = ChosenWindow(services=services, device=device)
    heading(device, 1)
    show_head(services, device)
    with ui.element("div").classes("tf-wide"):
        show_evidence(services, device, chosen)
        show_streams(services, device)
    show_histograms(chosen)
    FiguresOverTime(services, device).build()
    show_answers(services, device)
    show_usage(services, device)
    show_releases(services, device)
    show_software(services, device)
    show_events(services, device)
