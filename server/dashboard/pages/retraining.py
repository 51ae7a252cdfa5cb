"""``/retraining``: from suspicion to a settled release, and where a person must say yes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from fastapi import Request, Response
from nicegui import Client, run, ui

from server.dashboard.learning import Stage, TriggerCard, trigger_card
from server.dashboard.services import Services
from server.dashboard.session import Sessions
from server.dashboard.theme import LOGIN, confirm, empty, frame, heading, live, pill, tone_class
from server.dashboard.views import Tone
from server.errors import ServerError

_SHOWN = 20
_DETAILS = {
    "Train anyway": "Trains without proof that the drift harms; the gates decide all the same.",
    "Approve rollout": "A canary gets the new release first; its thresholds hold.",
}


def add_page(services: Services, sessions: Sessions) -> None:
    """Add the page."""

    @ui.page("/retraining")
    def page(request: Request) -> Response | None:
        if (refusal := sessions.refusal(request)) is not None:
            return refusal
        approval = Approval(services, sessions, request, ui.context.client)
        with frame("Retraining", "/retraining", partial(sessions.is_open, request)):
            heading("Retraining", 1)
            approval.look = live(lambda: _cards(services), approval.show)
        return None


@dataclass(slots=True)
class Approval:
    """The cards of one visitor's page and what their buttons do."""

    services: Services
    sessions: Sessions
    request: Request
    client: Client
    look: Callable[[], None] = lambda: None

    def show(self, cards: tuple[TriggerCard, ...]) -> None:
        """Show every retraining, open ones first."""
        if not cards:
            text = "It begins when a site, a cohort or the fleet sees something new for several windows."
            empty("No retraining yet", text)
        for card in cards:
            with ui.element("section").classes(f"tf-card tf-verdict tf-verdict-{card.phase.tone}"):
                self._card(card)

    def _card(self, card: TriggerCard) -> None:
        with ui.element("div").classes("tf-row"):
            heading(card.model)
            pill(card.phase)
            ui.label(card.opened).classes("tf-muted tf-small")
            ui.element("div").classes("tf-grow")
            if card.ask:
                ui.button(card.ask, on_click=partial(self._ask, card)).props("no-caps unelevated dense").style(
                    "padding: 4px 14px"
                )
        show_stages(card.stages)
        ui.label(f"What changed: {card.words or 'not known yet'}.")
        if card.text:
            ui.label(card.text[:1].upper() + card.text[1:] + ".").style("font-weight: 600")
        with ui.element("div").classes("tf-row tf-small"):
            ui.label(f"drifted under {card.release or 'an unknown release'}" + (
                f"; result {card.result}" if card.result else "")).classes("tf-muted")  # fmt: skip
            for device in card.devices:
                ui.link(device, f"/device/{device}").classes("tf-link")
            if card.more:
                ui.label(f"and {card.more} more").classes("tf-muted")

    async def _ask(self, card: TriggerCard) -> None:
        if not await confirm(self.client, f"{card.ask}?", _DETAILS[card.ask], card.ask):
            return
        with self.client:
            if not self.sessions.is_open(self.request):
                ui.navigate.to(LOGIN)
                return
            try:
                await run.io_bound(self.services.retraining.triggers.approve, card.id)
            except ServerError as error:
                ui.notify(str(error), type="negative")
            self.look()


def show_stages(stages: tuple[Stage, ...]) -> None:
    """Show the way: what is behind, where it is, what comes."""
    with ui.element("ol").classes("tf-stages"):
        for stage in stages:
            tone = Tone.BUSY if stage.now else stage.tone
            step = ui.element("li").classes(f"tf-stage {tone_class(tone)}")
            if stage.now:
                step.props('aria-current="step"')
            with step:
                ui.label(stage.name)


def _cards(services: Services) -> tuple[TriggerCard, ...]:
    now_ms = services.fleet.clock()
    cards = [trigger_card(trigger, now_ms) for trigger in services.retraining.triggers.all(_SHOWN)]
    return tuple(sorted(cards, key=lambda card: not card.open))
