"""``/software``: what devices run, by their own reports, and which devices run it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import FastAPI, Request, Response
from nicegui import ui

from server.dashboard.listing import CURSOR, AddressFilters, FilterField, ListedPage, SharedLook
from server.dashboard.services import Services
from server.dashboard.session import Sessions
from server.dashboard.theme import Column, live_apart
from server.dashboard.views import PageLink, Status, clock_time, state_status
from server.dashboard.visit import Pages, Visit
from server.errors import ServerError, UnknownDeviceError
from server.rollout.thresholds import devices as counted
from server.software.ledger import ComponentRunner, RunningComponent
from server.store.lists.paging import Page
from wire.cyclonedx import MEDIA_TYPE
from wire.software import ComponentKind

_SHOWN = 100
_SOURCE = "By what devices reported last, whether they are connected now or not."
_KINDS = {
    ComponentKind.AGENT: "agent", ComponentKind.PYTHON: "Python", ComponentKind.RUNTIME: "runtime",
    ComponentKind.PACKAGE: "package", ComponentKind.OS: "system", ComponentKind.KERNEL: "kernel",
    ComponentKind.ARCHITECTURE: "architecture", ComponentKind.BOARD: "board", ComponentKind.MODEL: "model",
}  # fmt: skip
_KIND = FilterField(name="kind", label="Kind", choices={kind.value: text for kind, text in _KINDS.items()})
COMPONENTS = ListedPage(
    path="/software", what="components", key="key",
    fields=(FilterField(name="search", label="Name", hint="onnx"), _KIND),
    columns=(
        Column(name="name", label="Name", look="wrapped", sortable=False),
        Column(name="kind", label="Kind", sortable=False),
        Column(name="version", label="Version", look="wrapped", sortable=False),
        Column(name="devices", label="Devices", look="link", sortable=False),
    ),
    none="A device reports what it runs once it is connected, if its agent is of this version.",
)  # fmt: skip
RUNNERS = ListedPage(
    path="/software/devices", what="devices", key="key",
    fields=(
        FilterField(name="name", label="Name"), FilterField(name="version", label="Version", hint="1.22.0 or 1.22.*"),
        _KIND,
    ),
    columns=(
        Column(name="device", label="Device", look="device", sortable=False),
        Column(name="site", label="Site", sortable=False),
        Column(name="state", label="State", look="pill", sortable=False),
        Column(name="what", label="Runs", look="wrapped", sortable=False),
        Column(name="since", label="Its software since (UTC)", sortable=False),
        Column(name="seen", label="Last heard of (UTC)", sortable=False),
    ),
    none="Name a component, as the list of components writes it.",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentRow:
    """One component that devices run."""

    key: str
    name: str
    kind: str
    version: str
    devices: PageLink


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerRow:
    """One device that runs a component."""

    key: str
    device: str
    site: str
    state: Status
    what: str
    since: str
    seen: str


def add_page(pages: Pages) -> None:
    """Add both pages."""
    services = pages.services
    components: SharedLook[AddressFilters, Page[ComponentRow]] = SharedLook(partial(component_rows, services))
    runners: SharedLook[AddressFilters, Page[RunnerRow]] = SharedLook(partial(runner_rows, services))
    unknown: SharedLook[str, str] = SharedLook(lambda _: unknown_text(*services.software.unknown()))
    pages.add("/software", "Software", partial(_build, COMPONENTS, components, unknown), text="Software of devices")
    pages.add(
        "/software/devices", "Software", partial(_build, RUNNERS, runners, unknown), text="Devices that run a component"
    )  # fmt: skip


def add_document(app: FastAPI, services: Services, sessions: Sessions) -> None:
    """Add the route that sends what a device runs now to who is logged in, as a CycloneDX document."""

    @app.get("/device/{device}/software.cdx.json", include_in_schema=False)
    def document(request: Request, device: str) -> Response:
        if sessions.principal(request, acting=True) is None:
            return sessions.refusal(request) or Response(status_code=401)
        try:
            found = services.software.document(device, services.fleet.clock())
        except ServerError as error:
            return Response(f"{error}\n", error.status, media_type="text/plain")
        name = {"Content-Disposition": 'attachment; filename="software.cdx.json"', "Cache-Control": "no-store"}
        return Response(json.dumps(found, ensure_ascii=False), media_type=MEDIA_TYPE, headers=name)


def component_rows(services: Services, asked: AddressFilters) -> Page[ComponentRow]:
    """Return the page of components at an address.

    Raises:
        CursorRefusedError: If its cursor is not of such a list.
    """
    values = dict(asked)
    found = services.software.components(
        search=values.get("search", ""), kind=values.get("kind", ""), limit=_SHOWN, cursor=values.get(CURSOR)
    )  # fmt: skip
    return found.of(_component)


def _component(one: RunningComponent) -> ComponentRow:
    query = {"name": one.name, "version": one.version, "kind": one.kind}
    link = PageLink.to(f"{one.devices:,}", "/software/devices", **{name: text for name, text in query.items() if text})
    return ComponentRow(
        key=f"{one.kind} {one.name} {one.version}", name=one.name, kind=_KINDS[ComponentKind(one.kind)],
        version=one.version, devices=link,
    )  # fmt: skip


def runner_rows(services: Services, asked: AddressFilters) -> Page[RunnerRow]:
    """Return the page of devices at an address; none without a name.

    Raises:
        CursorRefusedError: If its cursor is not of such a list.
    """
    values = dict(asked)
    if not values.get("name"):
        return Page(rows=(), next=None)
    found = services.software.runners(
        values["name"], version=values.get("version", ""), kind=values.get("kind", ""), limit=_SHOWN,
        cursor=values.get(CURSOR),
    )  # fmt: skip

    def row(one: ComponentRunner) -> RunnerRow:
        return RunnerRow(
            key=f"{one.device} {one.kind} {one.name} {one.version}", device=one.device, site=one.site,
            state=_state(services, one), what=f"{one.name} {one.version}".strip(), since=clock_time(one.from_ms),
            seen=clock_time(one.last_seen_ms) if one.last_seen_ms else "never",
        )  # fmt: skip

    return found.of(row)


def _state(services: Services, one: ComponentRunner) -> Status:
    try:
        device = services.fleet.device(one.device)
    except UnknownDeviceError:  # it was removed since the list was read
        return Status(one.state)
    return state_status(device, services.fleet.clock(), services.situation.silent_s)


def unknown_text(unreported: int, missing: int) -> str:
    """Return about how many devices nothing is said, "" for none."""
    parts = []
    if unreported:
        parts.append(f"{counted(unreported)} without a report of software (an older agent, or never connected)")
    if missing:
        parts.append(f"{counted(missing)} whose list is not here yet (it is asked for)")
    return f"Nothing is said here about {' and about '.join(parts)}." if parts else ""


def _build(
    listed: ListedPage, looks: SharedLook[AddressFilters, Page[Any]], unknown: SharedLook[str, str], visit: Visit
) -> None:
    ui.label(_SOURCE).classes("tf-muted tf-small")
    live_apart(partial(unknown.get, ""), _unknown)
    listed.build(visit.request.query_params, looks)
    if listed is RUNNERS:
        ui.link("All components", COMPONENTS.path).classes("tf-link tf-small")


def _unknown(text: str) -> None:
    if text:
        ui.label(text).classes("tf-small")
