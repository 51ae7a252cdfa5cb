"""``/retraining``: the stages of each retraining, and the buttons for a person's approval."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from nicegui import ui

from server.access.roles import Need
from server.dashboard.learning import TriggerCard, look_text, trigger_card
from server.dashboard.services import Services
from server.dashboard.theme import and_more, confirm, empty, heading, live, pill, tone_class
from server.dashboard.views import Cut, Tone
from server.dashboard.visit import Pages, Visit
from server.errors import UnknownJobError
from server.retraining.jobs import Jobs
from server.retraining.policy import Trigger

_SHOWN = 20
_DETAILS = {
    "Train anyway": "Trains without proof that the drift harms; the gates decide all the same.",
    "Approve rollout": "A canary gets the new release first; its thresholds hold.",
}


def add_page(pages: Pages) -> None:
    """Add the page."""
    pages.add("/retraining", "Retraining", _build)


def _build(visit: Visit) -> None:
    visit.look = live(lambda: _cards(visit.services), Approval(visit).show)


@dataclass(frozen=True, slots=True)
class Approval:
    """The cards on one visitor's page, with the actions of their buttons."""

    visit: Visit

    def show(self, found: Cut[TriggerCard]) -> None:
        """Show the retrainings, open ones first."""
        if not found.rows:
            text = "It begins when a site, a cohort or the fleet sees something new for several windows."
            empty("No retraining yet", text)
        for card in found.rows:
            with ui.element("section").classes(f"tf-card tf-verdict tf-verdict-{card.phase.tone}"):
                self._card(card)
        and_more(found.more, "see GET /api/retraining")

    def _card(self, card: TriggerCard) -> None:
        with ui.element("div").classes("tf-row"):
            heading(card.model)
            pill(card.phase)
            ui.label(card.opened).classes("tf-muted tf-small")
            ui.element("div").classes("tf-grow")
            if card.ask and self.visit.may(Need.APPROVE):
                ui.button(card.ask, on_click=partial(self._ask, card)).props("no-caps unelevated dense").style(
                    "padding: 4px 14px"
                )
        with ui.element("ol").classes("tf-stages"):
            for stage in card.stages:
                tone = Tone.BUSY if stage.now else stage.tone
                step = ui.element("li").classes(f"tf-stage {tone_class(tone)}")
                if stage.now:
                    step.props('aria-current="step"')
                with step:
                    ui.label(stage.name)
        ui.label(f"What changed: {card.words or 'not known yet'}.")
        if card.text:
            ui.label(card.text[:1].upper() + card.text[1:] + ".").style("font-weight: 600")
        if card.look:
            ui.label(card.look).classes("tf-muted tf-small")
        with ui.element("div").classes("tf-row tf-small"):
            ui.label(f"drifted under {card.release or 'an unknown release'}" + (
                f"; result {card.result}" if card.result else "")).classes("tf-muted")  # fmt: skip
            for device in card.devices.rows:
                ui.link(device, f"/device/{device}").classes("tf-link")
            and_more(card.devices.more)

    async def _ask(self, card: TriggerCard) -> None:
        if await confirm(self.visit.client, f"{card.ask}?", _DETAILS[card.ask], card.ask):
            approve = partial(self.visit.services.retraining.approve, card.id, by=self.visit.by())
            await self.visit.do(approve, Need.APPROVE)


def _cards(services: Services) -> Cut[TriggerCard]:
    triggers, now_ms = services.retraining.triggers, services.fleet.clock()
    jobs = services.retraining.jobs
    cards = [trigger_card(trigger, now_ms, look=_look(jobs, trigger)) for trigger in triggers.all(_SHOWN)]
    return Cut(tuple(sorted(cards, key=lambda card: not card.open)), triggers.count() - len(cards))


def _look(jobs: Jobs, trigger: Trigger) -> str:
    try:
        job = jobs.job(trigger.job)
    except UnknownJobError:  # before there is one
        return ""
    return look_text(job.look, jobs.looks(job.model, job.gate_split), jobs.config.max_looks)
