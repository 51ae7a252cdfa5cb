"""``/retraining``: the stages of each retraining, and the buttons for a person's approval."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from nicegui import ui

from server.access.roles import Need
from server.dashboard.learning import RetrainingStage, TriggerCard, look_text, trigger_card
from server.dashboard.listing import (
    CURSOR,
    FilterField,
    SharedLook,
    filter_form,
    page_ends,
    pager,
    refused,
    values_of,
)
from server.dashboard.services import Services
from server.dashboard.theme import (
    Markup,
    confirm,
    device_tag,
    empty,
    heading,
    live_apart,
    more_tag,
    pill,
    show_markup,
    tag,
    tone_class,
)
from server.dashboard.views import Tone
from server.dashboard.visit import Pages, Visit
from server.errors import UnknownJobError
from server.retraining.jobs import Jobs
from server.retraining.policy import RetrainingPhase, Trigger
from server.store.lists.paging import Page

_SHOWN = 20
APPROVALS = {
    "Train anyway": "Trains without proof that the drift harms; the gates decide all the same.",
    "Approve rollout": "A canary gets the new release first; its thresholds hold.",
}
"""What each button of an approval does, in words."""


FIELDS = (
    FilterField(name="model", label="Model"),
    FilterField(name="phase", label="Phase", choices={one.value: one.value for one in RetrainingPhase}),
)
Asked = tuple[tuple[str, str], ...]


def add_page(pages: Pages) -> None:
    """Add the page."""
    looks: SharedLook[Asked, Page[TriggerCard]] = SharedLook(partial(_cards, pages.services))
    pages.add("/retraining", "Retraining", partial(_build, looks))


def _build(looks: SharedLook[Asked, Page[TriggerCard]], visit: Visit) -> None:
    values, wrong = values_of(visit.request.query_params, FIELDS)
    filter_form("/retraining", FIELDS, values)
    look = partial(looks.get, tuple(sorted(values.items())))
    if wrong := wrong or refused(look):
        empty("No such list", f"{wrong}. See all retrainings at the address /retraining.")
        return
    visit.look = live_apart(look, Approval(visit, asked=bool(values)).show)
    live_apart(page_ends(look), lambda found: pager("/retraining", values, found, "retrainings"))


@dataclass(frozen=True, slots=True)
class Approval:
    """The cards on one visitor's page, with the actions of their buttons."""

    visit: Visit
    asked: bool = False

    def show(self, found: Page[TriggerCard]) -> None:
        """Show the retrainings, open ones first."""
        if not found.rows and self.asked:
            empty("No retraining here", "None is as the filters ask: see all at the address /retraining.")
        elif not found.rows:
            text = "It begins when a site, a cohort or the fleet sees something new for several windows."
            empty("No retraining yet", text)
        for card in found.rows:
            with ui.element("section").classes(f"tf-card tf-verdict tf-verdict-{card.phase.tone}"):
                self._card(card)

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
        show_markup(
            tag("ol", *map(_stage_tag, card.stages), look="tf-stages"),
            tag("div", f"What changed: {card.words or 'not known yet'}."),
            tag("div", card.text[:1].upper() + card.text[1:] + ".", style="font-weight: 600")
            if card.text else Markup(),
            tag("div", card.look, look="tf-muted tf-small") if card.look else Markup(),
            tag(
                "div",
                tag("div", f"drifted under {card.release or 'an unknown release'}"
                    + (f"; result {card.result}" if card.result else ""), look="tf-muted"),
                *map(device_tag, card.devices.rows), more_tag(card.devices.more), look="tf-row tf-small",
            ),
            look="tf-group",
        )  # fmt: skip

    async def _ask(self, card: TriggerCard) -> None:
        if await confirm(self.visit.client, f"{card.ask}?", APPROVALS[card.ask], card.ask):
            approve = partial(self.visit.services.retraining.approve, card.id, by=self.visit.by())
            await self.visit.do(approve, Need.APPROVE)


def _cards(services: Services, asked: Asked) -> Page[TriggerCard]:
    values, now_ms, jobs = dict(asked), services.fleet.clock(), services.retraining.jobs
    found = services.retraining.triggers.page(
        model=values.get("model", ""), phase=values.get("phase", ""), limit=_SHOWN, cursor=values.get(CURSOR),
        open_first=True,
    )  # fmt: skip
    return found.of(lambda trigger: trigger_card(trigger, now_ms, look=_look(jobs, trigger)))


def _stage_tag(stage: RetrainingStage) -> Markup:
    tone = Tone.BUSY if stage.now else stage.tone
    now = {"aria_current": "step"} if stage.now else {}
    return tag("li", tag("div", stage.name), look=f"tf-stage {tone_class(tone)}", **now)


def _look(jobs: Jobs, trigger: Trigger) -> str:
    try:
        job = jobs.job(trigger.job)
    except UnknownJobError:  # before there is one
        return ""
    return look_text(job.look, jobs.looks(job.model, job.gate_split), jobs.config.max_looks)
