"""``/``: the fleet at a glance: the overall status, verdicts, and its devices, a page of them at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from nicegui import ui

from server.access.roles import Need
from server.app.overall import Level, Overall
from server.dashboard import evidence
from server.dashboard.finding.addresses import page_of
from server.dashboard.learning import UnderWay, under_way
from server.dashboard.listing import (
    CURSOR,
    FilterField,
    SharedLook,
    address,
    filter_form,
    page_ends,
    pager,
    refused,
    values_of,
)
from server.dashboard.pages.retraining import APPROVALS
from server.dashboard.pages.rollouts import rollout_cards
from server.dashboard.progress import RolloutCard, SafetyLine, safety_line
from server.dashboard.services import Services
from server.dashboard.theme import (
    Column,
    Markup,
    and_more,
    confirm,
    device_tag,
    empty,
    heading,
    live_apart,
    live_table_apart,
    meter_tag,
    more_tag,
    pill,
    pill_tag,
    show_markup,
    tag,
    tone_class,
)
from server.dashboard.views import Cut, DeviceRow, Status, Tone, clock_time, device_row
from server.dashboard.visit import Pages, Visit
from server.drift.latest import newest_evidence
from server.rollout.service import Kept
from server.store.lists.devices import DeviceFilter, DeviceSort, FleetCondition
from server.store.lists.paging import Page

_ENDED_SHOWN = 20
_VERDICTS_SHOWN = 20
_ROLLOUTS_SHOWN = 4
_ROWS = 100
_ANY = ""
COLUMNS = (
    Column(name="device", label="Device", look="device", sortable=False),
    Column(name="site", label="Site", sortable=False),
    Column(name="state", label="State", look="pill", sortable=False),
    Column(name="release", label="Release", sortable=False),
    Column(name="phase", label="Update", look="pill", sortable=False),
    Column(name="evidence", label="Drift evidence, share of threshold", look="evidence", sortable=False),
    Column(name="seen", label="Last seen", sortable=False),
)
_CONDITIONS = {one.value: one.value.replace("_", " ") for one in FleetCondition}
FIELDS = (
    FilterField(name="search", label="Search"),
    FilterField(name="site", label="Site"),
    FilterField(name="release", label="Release"),
    FilterField(name="condition", label="Only", choices=_CONDITIONS),
    FilterField(name="sort", label="Sort by", choices={one.value: one.value for one in DeviceSort}),
    FilterField(name="order", label="Order", choices={"up": "ascending", "down": "descending"}),
)
_FIGURES: Mapping[FleetCondition, Tone] = {
    FleetCondition.CONNECTED: Tone.GOOD, FleetCondition.UPDATING: Tone.BUSY,
    FleetCondition.COMMISSIONING: Tone.BUSY, FleetCondition.DRIFTING: Tone.BAD, FleetCondition.FAILING: Tone.BAD,
    FleetCondition.LOST: Tone.BAD, FleetCondition.SILENT: Tone.WARN, FleetCondition.PAUSED: Tone.WARN,
    FleetCondition.DISCONNECTED: Tone.CALM, FleetCondition.NEVER_CONNECTED: Tone.WARN,
    FleetCondition.MUTED: Tone.CALM,
}  # fmt: skip
Asked = tuple[tuple[str, str], ...]
_LEVELS = {
    Level.WELL: (Tone.GOOD, "no problems"),
    Level.UNKNOWN: (Tone.CALM, "not everything is known"),
    Level.ATTENTION: (Tone.WARN, "a person should look"),
    Level.ALARM: (Tone.BAD, "a person must act"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The content of the page above the devices; ``counts``: of devices for which a condition holds, None: of all."""

    counts: Mapping[FleetCondition | None, int]
    overall: Overall
    rollouts: Cut[SafetyLine]
    verdicts: Cut[evidence.VerdictCard]
    under_way: Mapping[int, UnderWay]
    pools: Cut[evidence.PoolView]
    ended: Cut[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class FleetLooks:
    """What all visitors share: the head of the page, and the devices of each address that somebody looks at."""

    head: SharedLook[str, View]
    devices: SharedLook[Asked, Page[DeviceRow]]


def add_page(pages: Pages) -> None:
    """Add the page."""
    services = pages.services
    kept: Kept[RolloutCard] = {}
    looks = FleetLooks(SharedLook(lambda _: _overview(services, kept)), SharedLook(partial(device_rows, services)))
    pages.add("/", "Fleet", partial(_build, looks))


def _build(looks: FleetLooks, visit: Visit) -> None:
    acts = VerdictActs(visit)
    visit.look = live_apart(lambda at_most_s: looks.head.get(_ANY, at_most_s), partial(_show, acts))
    heading("Devices")
    values, wrong = values_of(visit.request.query_params, FIELDS)
    filter_form("/", FIELDS, values)
    asked = tuple(sorted(values.items()))
    if wrong := wrong or refused(partial(looks.devices.get, asked)):
        empty("No such list", f"{wrong}. See all devices by the link beside the filters, or at the address /.")
    else:
        _devices(looks, asked)
    live_apart(lambda at_most_s: looks.head.get(_ANY, at_most_s).ended, _show_ended)


def _devices(looks: FleetLooks, asked: Asked) -> None:
    def page(at_most_s: float) -> Page[DeviceRow]:
        return looks.devices.get(asked, at_most_s)

    def show(known: bool) -> None:  # noqa: FBT001 - what one look found
        if known:
            live_table_apart(COLUMNS, "device", lambda at_most_s: page(at_most_s).rows)
        elif asked:
            empty("No device here", "None is as the filters ask, or not any more: see all devices at the address /.")
        else:
            empty("No devices yet", "Make a claim with fleet-server claim, then run edge-agent enrol on the device.")

    live_apart(lambda at_most_s: bool(page(at_most_s).rows), show)
    live_apart(page_ends(page), lambda found: pager("/", dict(asked), found, "devices"))


def device_rows(services: Services, asked: Asked) -> Page[DeviceRow]:
    """Return the page of devices at an address.

    Raises:
        CursorRefusedError: If its cursor is not of such a list.
    """
    values, situation = dict(asked), services.situation
    wanted = DeviceFilter(
        search=values.get("search", ""), site=values.get("site", ""), release=values.get("release", ""),
        condition=FleetCondition(values["condition"]) if "condition" in values else None,
    )  # fmt: skip
    found = situation.listing.page(
        wanted, sort=DeviceSort(values.get("sort", DeviceSort.DEVICE)), descending=values.get("order") == "down",
        limit=_ROWS, cursor=values.get(CURSOR),
    )  # fmt: skip
    now_ms, rows = situation.clock(), []
    known = newest_evidence(services.database, devices=[device.device for device in found.rows])
    for device in found.rows:
        judged = known.get(device.device, {})
        ratio, flagged = judged.get("threshold_ratio"), bool(judged.get("flagged"))
        share = float(ratio) if isinstance(ratio, int | float) else None
        rows.append(device_row(device, now_ms, share, flagged=flagged, silent_s=situation.silent_s))
    return Page(rows=tuple(rows), next=found.next, previous=found.previous, total=found.total)


def _overview(services: Services, kept: Kept[RolloutCard]) -> View:
    situation = services.situation
    reading = situation.read()
    shown = Cut.of(services.drift.verdicts.open(), _VERDICTS_SHOWN)
    places = services.drift.places.of_verdicts([one.id for one in shown.rows])
    cards = tuple(evidence.verdict_card(alarm, reading.now_ms, places.get(alarm.id)) for alarm in shown.rows)
    triggers = services.retraining.triggers.of_verdicts([one.id for one in shown.rows])
    going = [card for card in rollout_cards(services, kept, ()).rows if card.open]
    return View(
        counts=situation.listing.counts(),
        overall=situation.overall(reading),
        rollouts=Cut.of([safety_line(card) for card in going], _ROLLOUTS_SHOWN),
        under_way={verdict: under_way(trigger) for verdict, trigger in triggers.items()},
        verdicts=Cut(cards, shown.more),
        pools=evidence.pools(services.database),
        ended=_ended(services),
    )


@dataclass(frozen=True, slots=True)
class VerdictActs:
    """What is under way about a verdict on one visitor's page, with the button of the next act."""

    visit: Visit

    def show(self, going: UnderWay) -> None:
        """Show how the retraining of a verdict stands, and what a person may do next."""
        with ui.element("div").classes("tf-row tf-small"):
            ui.label("Done about it:" if going.over else "Under way:").classes("tf-muted")
            pill(going.phase)
            if going.text:
                ui.label(going.text)
            for link in going.links:
                ui.link(link.text, link.href).classes("tf-link")
            if going.ask and self.visit.may(Need.APPROVE):
                ui.element("div").classes("tf-grow")
                button = ui.button(going.ask, on_click=partial(self._approve, going))
                button.props("no-caps unelevated dense").style("padding: 4px 14px")

    async def _approve(self, going: UnderWay) -> None:
        if await confirm(self.visit.client, f"{going.ask}?", APPROVALS[going.ask], going.ask):
            approve = partial(self.visit.services.retraining.approve, going.id, by=self.visit.by())
            await self.visit.do(approve, Need.APPROVE)


def _show_rollouts(rollouts: Cut[SafetyLine]) -> None:
    """Show the rollouts that are not over: is the update safe?"""
    if not rollouts.rows:
        return
    with ui.element("section").classes("tf-card"):
        heading("Is the update safe?")
        for line in rollouts.rows:
            with ui.element("div").classes("tf-row tf-small"):
                ui.link(line.release, page_of("rollout", line.id)).classes("tf-link").style("font-weight: 600")
                pill(line.phase)
                pill(line.safe)
            for text in (*line.groups, *line.figures):
                ui.label(text).classes("tf-muted tf-small tf-number")
        if rollouts.more:
            ui.link(f"and {rollouts.more} more", "/rollouts").classes("tf-link tf-small")


def _show(acts: VerdictActs, view: View) -> None:
    with ui.element("div").classes("tf-grid"):
        _figure(view.counts[None], "devices", Tone.CALM, "/")
        for condition, tone in _FIGURES.items():
            count, whole = view.counts[condition], condition is FleetCondition.CONNECTED
            shown = Tone.WARN if whole and count < view.counts[None] else tone
            _figure(count, condition.value.replace("_", " "), shown, address("/", {"condition": condition.value}))
    tone, words = _LEVELS[view.overall.level]
    with ui.element("section").classes(f"tf-card tf-verdict tf-verdict-{tone}"):
        pill(Status(words, tone))
        if not view.overall.concerns:
            ui.label(view.overall.text)
        for concern in view.overall.concerns:
            with ui.element("div").classes("tf-row").style("gap: 8px"):
                pill(Status(concern.level.value, _LEVELS[concern.level][0]))
                ui.label(concern.text)
        if view.overall.concerns:
            ui.link("Alerts: what needs a person, and who looks after it", "/alerts").classes("tf-link tf-small")
    _show_rollouts(view.rollouts)
    if view.verdicts.rows:
        heading("Open verdicts")
    for card in view.verdicts.rows:
        going = view.under_way.get(card.id)
        show_verdict(card, None if going is None else partial(acts.show, going))
    and_more(view.verdicts.more, "see fleet-server verdicts list --open")
    if view.pools.rows:
        _pools(view.pools)


def _pools(pools: Cut[evidence.PoolView]) -> None:
    """Show the pools: the evidence of many devices together, without those that are flagged already."""
    with ui.element("section").classes("tf-card"):
        heading("Devices taken together")
        ui.label(
            "Evidence of the devices that are not flagged, added up: a small change that all share. Collecting: the "
            "whole fleet is judged once the baselines of most devices are complete."
        ).classes("tf-muted tf-small")
        for pool in pools.rows:
            show_markup(
                tag("div", pool.name, style="font-weight: 550"),
                tag("div", pool.members, look="tf-muted tf-small"),
                meter_tag(pool.ratio, pool.status.tone, f"Evidence of {pool.name}, share of its threshold"),
                tag("div", pool.status.text, look=f"tf-number tf-small tf-plain-{pool.status.tone}"),
                look="tf-pool",
            )
        and_more(pools.more, "with less evidence")


def show_verdict(card: evidence.VerdictCard, also: Callable[[], None] | None = None) -> None:
    """Show one verdict: its kind, devices, cause, and what to do; ``also``: shows more in its card."""
    provisional = Status("provisional: baselines are still collected", Tone.BUSY)
    with ui.element("section").classes(f"tf-card tf-verdict tf-verdict-{card.kind.tone}"):
        show_markup(
            pill_tag(card.kind),
            pill_tag(provisional) if card.provisional else Markup(),
            tag("div", card.where, style="font-weight: 600") if card.where else Markup(),
            tag("div", look="tf-grow"),
            tag("div", card.since, look="tf-muted tf-small"),
            look="tf-row",
        )
        show_markup(
            tag("div", f"What changed: {card.cause or 'not known yet'}."),
            tag("div", f"What to do: {card.action}.", style="font-weight: 600"),
            look="tf-row",
        )
        show_markup(*map(device_tag, card.devices.rows), more_tag(card.devices.more), look="tf-row tf-small")
        if also is not None:
            also()


def _ended(services: Services) -> Cut[tuple[str, str]]:
    found = services.situation.listing.page(DeviceFilter(ended=True), limit=_ENDED_SHOWN)
    rows = tuple((device.device, f"{device.ended} {clock_time(device.ended_ms)}") for device in found.rows)
    return Cut(rows, (found.total or len(rows)) - len(rows))


def _show_ended(devices: Cut[tuple[str, str]]) -> None:
    """Show the devices that left the fleet last; they count nowhere else."""
    if not devices.rows:
        return
    heading("Revoked and removed")
    with ui.element("section").classes("tf-card"):
        for name, ended in devices.rows:
            show_markup(device_tag(name), tag("div", ended, look="tf-muted"), look="tf-row tf-small")
        and_more(devices.more, "see fleet-server devices list --ended")


def _figure(value: int, name: str, tone: Tone, target: str) -> None:
    with ui.link(target=target).classes("tf-card tf-figure").style("gap: 4px"):
        ui.label(f"{value:,}").classes("tf-count" + (f" {tone_class(tone)}" if value else ""))
        ui.label(name).classes("tf-muted tf-small")
