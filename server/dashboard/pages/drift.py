"""``/drift``: a heat map of one window, cohorts by streams; from each cell to the devices and verdicts behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from urllib.parse import quote

from nicegui import ui

from server.dashboard import evidence
from server.dashboard.drawing.heat_map import heat_map, legend
from server.dashboard.listing import FilterField, SharedLook, address, filter_form, values_of
from server.dashboard.pages.overview import show_verdict
from server.dashboard.services import Services
from server.dashboard.theme import and_more, empty, heading, live_apart
from server.dashboard.views import Cut, clock_time
from server.dashboard.visit import Pages, Visit
from server.drift.ledger import StoredVerdict
from server.errors import UnknownReleaseError
from server.store.lists.drift_map import DEVICE
from server.telemetry.drift_map import DriftMap, MapRow
from server.wording import duration

PATH = "/drift"
FIELDS = (
    FilterField(name="by", label="Rows: site, release, device or an attribute"),
    FilterField(name="having", label="Only devices with (site=north)"),
    FilterField(name="stream", label="First by stream"),
    FilterField(name="release", label="Against the reference of release"),
    FilterField(name="at", label="At (UTC, 2026-11-30T14:00)"),
)
_VERDICTS, _LOOKED_AT = 10, 200
_DAY = 24
Asked = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MapView:
    """A map with the verdicts that were open in its window; ``wrong``: why there is none."""

    found: DriftMap | None = None
    verdicts: Cut[evidence.VerdictCard] = field(default_factory=lambda: Cut(()))
    offered: tuple[str, ...] = ()
    wrong: str = ""


def add_page(pages: Pages) -> None:
    """Add the page."""
    looks = SharedLook(partial(view, pages.services))
    pages.add(PATH, "Drift", partial(_build, looks), text="Drift, by cohort and stream")


def _build(looks: SharedLook[Asked, MapView], visit: Visit) -> None:
    ui.label(
        "Each cell: the mean evidence of the row's devices that the stream holds in one window, in percent of the "
        "threshold of an alarm. A look, not a test: of many cells the largest is always some one's, and the budget of "
        "alarms holds for verdicts alone."
    ).classes("tf-muted")
    values, wrong = values_of(visit.request.query_params, FIELDS)
    filter_form(PATH, FIELDS, values)
    if wrong:
        empty("No such map", f"{wrong}.")
        return
    asked = tuple(sorted(values.items()))
    live_apart(lambda at_most_s: looks.get(asked, at_most_s), partial(_show, values))


def view(services: Services, asked: Asked) -> MapView:
    """Return the map at an address."""
    values = dict(asked)
    name, equal, value = values.get("having", "").partition("=")
    if values.get("having") and not (name and equal):
        return MapView(wrong=f"Expected ATTRIBUTE=VALUE, such as site=north, got {values['having']!r}")
    at_ms = _moment_ms(values["at"]) if "at" in values else None
    if "at" in values and at_ms is None:
        return MapView(wrong=f"Expected a UTC time such as 2026-11-30T14:00, got {values['at']!r}")
    try:
        found = services.explorer.explore(
            values.get("by", "site"), at_ms=at_ms, release=values.get("release", ""), stream=values.get("stream", ""),
            within=(name, value) if equal else None,
        )  # fmt: skip
    except UnknownReleaseError as error:
        return MapView(wrong=str(error))
    return MapView(
        found=found, offered=services.explorer.attributes(), verdicts=_verdicts(services, found, (name, value))
    )


def _moment_ms(text: str) -> int | None:
    try:
        found = datetime.fromisoformat(text)
        found_ms = (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000
    except (ValueError, OverflowError):
        return None
    return int(found_ms) if found_ms >= 0 else None


def _verdicts(services: Services, found: DriftMap, within: tuple[str, str]) -> Cut[evidence.VerdictCard]:
    """Return the verdicts that were open in the window; ``within``: about these devices alone, if it is set."""
    if found.at_ms is None:
        return Cut(())
    end_ms, shown = found.at_ms + found.window_ms, {row.cohort for row in found.rows}

    def concerns(one: StoredVerdict) -> bool:
        if not within[0]:
            return True
        of_device = found.by == DEVICE and not shown.isdisjoint(one.devices)
        return of_device or one.attributes.get(within[0]) == within[1]

    there = [
        one for one in services.drift.verdicts.latest(_LOOKED_AT)
        if one.first_window_ms < end_ms and (not one.closed_ms or one.closed_ms > found.at_ms) and concerns(one)
    ]  # fmt: skip
    now_ms = services.fleet.clock()
    cut = Cut.of(there, _VERDICTS)
    return Cut(tuple(evidence.verdict_card(one, now_ms) for one in cut.rows), cut.more)


def _show(values: Mapping[str, str], view: MapView) -> None:
    found = view.found
    if found is None:
        empty("No such map", f"{view.wrong}. See the newest window of all sites at the address {PATH}.")
        return
    _choices(values, view.offered, found.by)
    if found.at_ms is None:
        empty("No evidence yet", "The first comes at the end of the first device's window.")
        return
    _windows(values, found)
    if not found.rows:
        empty("No device here", "No device of the fleet is as the filters ask.")
        return
    with ui.element("section").classes("tf-card"):
        ui.label(summary(found)).classes("tf-small")
        links = partial(_row_link, values, found), partial(_cell_link, values, found)
        ui.html(heat_map(found, *links), sanitize=False).style("width: 100%")
        ui.html(legend(), sanitize=False)
        and_more(found.cohorts - len(found.rows), "with less evidence; fleet-server drift explore has them")
        and_more(found.all_streams - len(found.streams), "streams, which hold less here")
    heading("Verdicts of this window")
    for card in view.verdicts.rows:
        show_verdict(card)
    if not view.verdicts.rows:
        ui.label("None: nothing here is an alarm.").classes("tf-muted")
    and_more(view.verdicts.more, "see fleet-server verdicts list")


def summary(found: DriftMap) -> str:
    """Return which window is shown, of how many devices, and against what."""
    devices, windows = sum(row.devices for row in found.rows), sum(row.windows for row in found.rows)
    told = f"Window from {clock_time(found.at_ms or 0)} UTC, {duration(found.window_ms)}; {windows:,} of the "
    told += f"{devices:,} devices in these rows sent one."
    if found.references > 1:
        told += f" {found.references} references are in it: each device is compared with its own."
    learning = sum(row.learning for row in found.rows)
    return told + (f" {learning:,} are compared with training, because they still learn." if learning else "")


def _choices(values: Mapping[str, str], offered: tuple[str, ...], by: str) -> None:
    with ui.element("nav").classes("tf-row tf-small").props('aria-label="Rows of the map"'):
        ui.label("Rows:").classes("tf-muted")
        for one in offered:
            if one == by:
                ui.label(one[:60]).style("font-weight: 600")
            else:
                ui.link(one[:60], address(PATH, values, by=one)).classes("tf-link")


def _windows(values: Mapping[str, str], found: DriftMap) -> None:
    at_ms, newest_ms = found.at_ms or 0, found.newest_ms or 0
    steps = (("A day earlier", -_DAY), ("Earlier", -1), ("Later", 1), ("A day later", _DAY))
    with ui.element("nav").classes("tf-row tf-small").props('aria-label="Windows"'):
        ui.label(clock_time(at_ms)[:-3] + " UTC").classes("tf-number").style("font-weight: 600")
        for label, windows in steps:
            hours = windows if abs(windows) == 1 else windows * 3_600_000 / found.window_ms
            there_ms = at_ms + int(hours * found.window_ms)
            if 0 <= there_ms <= newest_ms:
                ui.link(label, address(PATH, values, at=_iso(there_ms))).classes("tf-link")
        if at_ms != newest_ms:
            ui.link("Newest", address(PATH, values, at="")).classes("tf-link")


def _iso(at_ms: int) -> str:
    moment = datetime.fromtimestamp(at_ms / 1000, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M" if at_ms % 60_000 == 0 else "%Y-%m-%dT%H:%M:%S.%f")


def _row_link(values: Mapping[str, str], found: DriftMap, row: MapRow) -> str:
    if found.by == DEVICE:
        return f"/device/{quote(row.cohort, safe='')}"
    return _devices_link(values, found, row, "")


def _cell_link(values: Mapping[str, str], found: DriftMap, row: MapRow, stream: str) -> str:
    return "" if found.by == DEVICE else _devices_link(values, found, row, stream)


def _devices_link(values: Mapping[str, str], found: DriftMap, row: MapRow, stream: str) -> str:
    """Return the address of the map of a cohort's devices; they replace what the devices had in common before."""
    return address(PATH, values, by=DEVICE, having=f"{found.by}={row.cohort}", stream=stream, at=_iso(found.at_ms or 0))
