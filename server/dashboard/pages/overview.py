"""``/``: the fleet at a glance: the overall status, verdicts, and every device."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from nicegui import ui

from server.app.overall import Level, Overall
from server.app.situation import Reading
from server.dashboard import evidence
from server.dashboard.services import Services
from server.dashboard.theme import Column, and_more, empty, heading, live, live_table, meter, pill, tone_class
from server.dashboard.views import Counts, Cut, DeviceRow, Status, Tone, clock_time, counts, device_row
from server.dashboard.visit import Pages, Visit

_ENDED_SHOWN = 20
_FRESH_S = 1.0  # the fleet is read at most this often, for all visitors together
COLUMNS = (
    Column(name="device", label="Device", look="device"),
    Column(name="site", label="Site"),
    Column(name="state", label="State", look="pill"),
    Column(name="release", label="Release"),
    Column(name="phase", label="Update", look="pill"),
    Column(name="evidence", label="Drift evidence, share of threshold", look="evidence"),
    Column(name="seen", label="Last seen"),
)
_LEVELS = {
    Level.WELL: (Tone.GOOD, "no problems"),
    Level.UNKNOWN: (Tone.CALM, "not everything is known"),
    Level.ATTENTION: (Tone.WARN, "a person should look"),
    Level.ALARM: (Tone.BAD, "a person must act"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The content of the page."""

    rows: tuple[DeviceRow, ...]
    counts: Counts
    overall: Overall
    verdicts: tuple[evidence.VerdictCard, ...]
    pools: Cut[evidence.PoolView]


def add_page(pages: Pages) -> None:
    """Add the page."""
    pages.add("/", "Fleet", partial(_build, shared(lambda: _overview(pages.services))))


def _build(look: Callable[[], View], visit: Visit) -> None:
    live(lambda: replace(look(), rows=()), _show)
    live(lambda: bool(look().rows), lambda known: _table(look) if known else _no_devices())
    live(lambda: _ended(visit.services), _show_ended)


def shared(look: Callable[[], View]) -> Callable[[], View]:
    """Return ``look``, cached for a second for all visitors together."""
    kept: list[tuple[float, View]] = []

    def again() -> View:
        now_s = time.monotonic()
        if not kept or now_s - kept[0][0] >= _FRESH_S:
            kept[:] = [(now_s, look())]
        return kept[0][1]

    return again


def rows(reading: Reading, silent_s: float) -> tuple[DeviceRow, ...]:
    """Return one row for each device."""
    lines = []
    for device in reading.devices:
        found = reading.evidence.get(device.device, {})
        ratio, flagged = found.get("threshold_ratio"), bool(found.get("flagged"))
        known = float(ratio) if isinstance(ratio, int | float) else None
        lines.append(device_row(device, reading.now_ms, known, flagged=flagged, silent_s=silent_s))
    return tuple(lines)


def _overview(services: Services) -> View:
    situation = services.situation
    reading = situation.read()
    alarms, places = services.drift.verdicts.open(), {one.verdict: one for one in services.drift.places.all()}
    found = tuple(evidence.verdict_card(alarm, reading.now_ms, places.get(alarm.id)) for alarm in alarms)
    lines = rows(reading, situation.silent_s)
    return View(
        rows=lines,
        counts=counts(lines),
        overall=situation.overall(reading),
        verdicts=found,
        pools=evidence.pools(services.database),
    )


def _show(view: View) -> None:
    figures = view.counts
    with ui.element("div").classes("tf-grid"):
        _figure(figures.devices, "devices", Tone.CALM)
        _figure(figures.connected, "connected", Tone.GOOD if figures.connected == figures.devices else Tone.WARN)
        _figure(figures.updating, "updating", Tone.BUSY)
        _figure(figures.drifting, "drifting", Tone.BAD)
        _figure(figures.troubled, "in trouble", Tone.BAD)
    tone, words = _LEVELS[view.overall.level]
    with ui.element("section").classes(f"tf-card tf-verdict tf-verdict-{tone}"):
        pill(Status(words, tone))
        if not view.overall.concerns:
            ui.label(view.overall.text)
        for concern in view.overall.concerns:
            with ui.element("div").classes("tf-row").style("gap: 8px"):
                pill(Status(concern.level.value, _LEVELS[concern.level][0]))
                ui.label(concern.text)
    if view.verdicts:
        heading("Open verdicts")
    for card in view.verdicts:
        show_verdict(card)
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
            with ui.element("div").classes("tf-pool"):
                ui.label(pool.name).style("font-weight: 550")
                ui.label(pool.members).classes("tf-muted tf-small")
                meter(pool.ratio, pool.status.tone, f"Evidence of {pool.name}, share of its threshold")
                ui.label(pool.status.text).classes(f"tf-number tf-small tf-plain-{pool.status.tone}")
        and_more(pools.more, "with less evidence")


def show_verdict(card: evidence.VerdictCard) -> None:
    """Show one verdict: its kind, devices, cause, and what to do."""
    with ui.element("section").classes(f"tf-card tf-verdict tf-verdict-{card.kind.tone}"):
        with ui.element("div").classes("tf-row"):
            pill(card.kind)
            if card.provisional:
                pill(Status("provisional: baselines are still collected", Tone.BUSY))
            if card.where:
                ui.label(card.where).style("font-weight: 600")
            ui.element("div").classes("tf-grow")
            ui.label(card.since).classes("tf-muted tf-small")
        with ui.element("div").classes("tf-row"):
            ui.label(f"What changed: {card.cause or 'not known yet'}.")
            ui.label(f"What to do: {card.action}.").style("font-weight: 600")
        with ui.element("div").classes("tf-row tf-small"):
            for device in card.devices.rows:
                ui.link(device, f"/device/{device}").classes("tf-link")
            and_more(card.devices.more)


def _ended(services: Services) -> Cut[tuple[str, str]]:
    found = Cut.of(services.fleet.ended(), _ENDED_SHOWN)
    rows = ((device.device, f"{device.ended} {clock_time(device.ended_ms)}") for device in found.rows)
    return Cut(tuple(rows), found.more)


def _show_ended(devices: Cut[tuple[str, str]]) -> None:
    """Show the devices that left the fleet last; they count nowhere else."""
    if not devices.rows:
        return
    heading("Revoked and removed")
    with ui.element("section").classes("tf-card"):
        for name, ended in devices.rows:
            with ui.element("div").classes("tf-row tf-small"):
                ui.link(name, f"/device/{name}").classes("tf-link")
                ui.label(ended).classes("tf-muted")
        and_more(devices.more, "see fleet-server devices list --ended")


def _figure(value: int, name: str, tone: Tone) -> None:
    with ui.element("div").classes("tf-card").style("gap: 4px"):
        ui.label(str(value)).classes("tf-count" + (f" {tone_class(tone)}" if value else ""))
        ui.label(name).classes("tf-muted tf-small")


def _table(look: Callable[[], View]) -> None:
    heading("Devices")
    live_table(COLUMNS, "device", lambda: look().rows)


def _no_devices() -> None:
    empty("No devices yet", "Make a claim with fleet-server claim, then run edge-agent enrol on the device.")
