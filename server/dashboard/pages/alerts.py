"""``/alerts``: what needs a person, the open ones first, with buttons; ``?id=N`` shows one with its history."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import partial

from nicegui import ui

from server.access.roles import Need
from server.alerts.model import AlertState
from server.alerts.notices import PROMISE
from server.dashboard.alerting import SNOOZES, AlertCard, alert_card, history_lines, waiting_text
from server.dashboard.services import Services
from server.dashboard.theme import and_more, ask_decision, choose, empty, heading, live, pill, tone_class
from server.dashboard.visit import Pages, Visit
from server.errors import UnknownAlertError

_OPEN_SHOWN, _OVER_SHOWN = 50, 20


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertsView:
    """The content of the page; ``asked``: the one of the address, ``waiting``: routes that fail, in words."""

    asked: AlertCard | None
    open: tuple[AlertCard, ...]
    more: int
    over: tuple[AlertCard, ...]
    waiting: str


def add_page(pages: Pages) -> None:
    """Add the page."""
    pages.add("/alerts", "Alerts", _build)


def _build(visit: Visit) -> None:
    ui.label(PROMISE).classes("tf-muted tf-small")
    asked = visit.request.query_params.get("id", "")
    number = int(asked) if asked.isdecimal() and len(asked) < 19 else 0  # noqa: PLR2004 - digits of 64 bits
    visit.look = live(lambda: _view(visit.services, number), Handling(visit).show)


def _view(services: Services, asked: int) -> AlertsView:
    alerts, now_ms = services.alerts, services.fleet.clock()
    there = alerts.list(limit=_OPEN_SHOWN)
    total = sum(alerts.counts().values())
    ordered = sorted(there, key=lambda one: (one.state is AlertState.SNOOZED, -one.severity.rank, -one.id))
    over = alerts.list({AlertState.RESOLVED}, limit=_OVER_SHOWN)
    one = None
    if asked:
        try:
            found = alerts.get(asked)
            one = alert_card(found, now_ms, history_lines(alerts.history(asked), alerts.deliveries(asked)))
        except UnknownAlertError:
            one = None
    return AlertsView(
        asked=one,
        open=tuple(alert_card(alert, now_ms) for alert in ordered if alert.id != asked),
        more=max(total - len(there), 0),
        over=tuple(alert_card(alert, now_ms) for alert in over if alert.id != asked),
        waiting=waiting_text(alerts.waiting(), now_ms),
    )


@dataclass(frozen=True, slots=True)
class Handling:
    """The cards on one visitor's page, with the actions of their buttons."""

    visit: Visit

    def show(self, view: AlertsView) -> None:
        """Show the one that was asked for, then the open ones, then those that are over."""
        if view.waiting:
            ui.label(f"Alerts reach nobody by {view.waiting}").classes("tf-plain-bad").props("role=alert")
        if view.asked is not None:
            self._card(view.asked)
        if not view.open and (view.asked is None or view.asked.over):
            empty("No open alert", "Nothing that is known needs a person.")
        for card in view.open:
            self._card(card)
        and_more(view.more, "see fleet-server alerts list DIR")
        if view.over:
            heading("Over")
        for card in view.over:
            self._card(card)

    def _card(self, card: AlertCard) -> None:
        tone = "calm" if card.over else card.severity.tone
        with ui.element("section").classes(f"tf-card tf-verdict tf-verdict-{tone}"):
            with ui.element("div").classes("tf-row"):
                if not card.over:
                    pill(card.severity)
                pill(card.state)
                ui.link(card.title, f"/alerts?id={card.id}").classes("tf-link").style("font-weight: 600")
                ui.element("div").classes("tf-grow")
                ui.label(card.since).classes("tf-muted tf-small")
            with ui.element("div").classes("tf-row"):
                ui.label(f"What: {card.cause}.")
                ui.label(f"What to do: {card.action}.").style("font-weight: 600")
            with ui.element("div").classes("tf-row tf-small"):
                if card.where:
                    ui.label(card.where).classes("tf-muted")
                for device in card.devices.rows:
                    ui.link(device, f"/device/{device}").classes("tf-link")
                and_more(card.devices.more)
                if not card.page.startswith("/device/"):
                    ui.link("its page", card.page).classes("tf-link")
            if not card.over and self.visit.may(Need.OPERATE):
                self._buttons(card)
            if card.lines:
                self._details(card)

    def _buttons(self, card: AlertCard) -> None:
        with ui.element("div").classes("tf-row"):
            for name, act in (
                ("Acknowledge", self._acknowledge), ("Take", self._take), ("Snooze", self._snooze),
                ("Resolve", self._resolve),
            ):  # fmt: skip
                ui.button(name, on_click=partial(act, card)).props("no-caps outline dense").style("padding: 4px 14px")

    def _details(self, card: AlertCard) -> None:
        drawn = self.visit.services.picture.of(card.verdict)
        if drawn is not None:
            source = "data:image/png;base64," + base64.b64encode(drawn.png).decode()
            ui.element("img").props(f'src="{source}" alt="Evidence over windows: see the text below"').style(
                "max-width: 100%; background: white"
            )
            ui.label(drawn.caption).classes("tf-muted tf-small")
        for line in card.lines:
            with ui.element("div").classes("tf-row tf-small"):
                ui.label(line.at).classes("tf-muted")
                ui.label(line.text).classes(tone_class(line.tone).replace("tf-", "tf-plain-"))

    async def _acknowledge(self, card: AlertCard) -> None:
        text = "You have seen it; it stays open, and its end is sent."
        if found := await ask_decision(self.visit.client, f"Acknowledge: {card.title}?", text, "Acknowledge"):
            await self.visit.do(
                partial(self.visit.services.alerts.acknowledge, card.id, note=found[0], by=self.visit.by(found[1]))
            )

    async def _take(self, card: AlertCard) -> None:
        text = "You look after it, and others see that."
        if found := await ask_decision(self.visit.client, f"Take: {card.title}?", text, "Take"):
            await self.visit.do(
                partial(self.visit.services.alerts.take, card.id, note=found[0], by=self.visit.by(found[1]))
            )

    async def _snooze(self, card: AlertCard) -> None:
        question = f"Snooze: {card.title}? Nothing is sent until then, but its end."
        found = await choose(self.visit.client, question, {name: name for name in SNOOZES}, "Snooze")
        if found:
            alerts = self.visit.services.alerts
            until_ms = alerts.clock() + 1000 * SNOOZES[found[0]]
            await self.visit.do(partial(alerts.snooze, card.id, until_ms, by=self.visit.by(found[1])))

    async def _resolve(self, card: AlertCard) -> None:
        text = "Say why: it stays resolved until its cause was over and came back, or is more severe."
        if found := await ask_decision(self.visit.client, f"Resolve: {card.title}?", text, "Resolve"):
            await self.visit.do(
                partial(self.visit.services.alerts.resolve, card.id, found[0], by=self.visit.by(found[1]))
            )
