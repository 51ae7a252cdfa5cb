"""``/rollouts``: how far each release is, and the buttons that steer it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from fastapi import Request, Response
from nicegui import Client, run, ui

from server.dashboard.new_rollout import NewRollout
from server.dashboard.progress import GroupView, RolloutCard, rollout_card
from server.dashboard.services import Services
from server.dashboard.session import Sessions
from server.dashboard.theme import LOGIN, confirm, empty, frame, heading, live, meter, pill
from server.dashboard.views import Status, Tone
from server.errors import ServerError
from server.rollout.model import Rollout

_SHOWN = 20
_QUESTIONS = {
    "approve": ("Approve {release}?", "The first group is told at once; the next open when each reached its success."),
    "pause": ("Pause {release}?", "No further device is told; those under way go on."),
    "resume": ("Resume {release}?", "Failures so far are tolerated, and further devices are told."),
    "abort": ("Abort {release}?", "Whoever has not committed goes back to what it ran before. This can't be undone."),
}
_LOOKS = {"approve": "unelevated", "resume": "unelevated", "pause": "outline", "abort": "outline color=negative"}


def add_page(services: Services, sessions: Sessions) -> None:
    """Add the page."""

    @ui.page("/rollouts")
    def page(request: Request) -> Response | None:
        if (refusal := sessions.refusal(request)) is not None:
            return refusal
        steering = Steering(services, sessions, request, ui.context.client)
        with frame("Rollouts", "/rollouts", partial(sessions.is_open, request)):
            heading("Rollouts", 1)
            NewRollout(services, sessions, request, ui.context.client, steering.again).build()
            steering.look = live(lambda: _cards(services), steering.show)
        return None


@dataclass(slots=True)
class Steering:
    """The cards of one visitor's page and what their buttons do."""

    services: Services
    sessions: Sessions
    request: Request
    client: Client
    look: Callable[[], None] = lambda: None

    def again(self) -> None:
        """Look now and show what changed."""
        self.look()

    def show(self, cards: tuple[RolloutCard, ...]) -> None:
        """Show every rollout, those that go on first."""
        if not cards:
            empty("No rollouts yet", "Publish a release with compressor publish; then make its rollout here.")
        for card in cards:
            with ui.element("section").classes(f"tf-card tf-verdict tf-verdict-{card.phase.tone}"):
                self._card(card)

    def _card(self, card: RolloutCard) -> None:
        with ui.element("div").classes("tf-row"):
            heading(card.release)
            pill(card.phase)
            ui.label(card.created).classes("tf-muted tf-small")
            if card.air:
                ui.label(f"{card.air} on air").classes("tf-muted tf-small")
            ui.element("div").classes("tf-grow")
            for action in card.actions:
                button = ui.button(action.capitalize(), on_click=partial(self._ask, card, action))
                button.props(f"no-caps dense {_LOOKS[action]}").style("padding: 4px 14px")
        if card.reason:
            ui.label(card.reason).style("font-weight: 600")
        for group in card.groups:
            show_group(group)

    async def _ask(self, card: RolloutCard, action: str) -> None:
        question, detail = _QUESTIONS[action]
        if not await confirm(self.client, question.format(release=card.release), detail, action.capitalize()):
            return
        with self.client:
            if not self.sessions.is_open(self.request):
                ui.navigate.to(LOGIN)
                return
            try:
                await run.io_bound(self._act(action), card.id)
            except ServerError as error:
                ui.notify(str(error), type="negative")
            self.look()

    def _act(self, action: str) -> Callable[[str], Rollout]:
        rollouts = self.services.rollouts
        return {
            "approve": rollouts.approve, "pause": rollouts.pause, "resume": rollouts.resume, "abort": rollouts.abort,
        }[action]  # fmt: skip


def show_group(group: GroupView) -> None:
    """Show one group: its bar, its figures, its devices."""
    with ui.element("div").style("display: flex; flex-direction: column; gap: 6px; padding-top: 6px"):
        with ui.element("div").classes("tf-row"):
            ui.label(group.name).style("font-weight: 600; min-width: 90px")
            with ui.element("div").style("flex: 1; min-width: 120px"):
                meter(group.committed_ratio, Tone.BAD if group.failed else Tone.GOOD)
            ui.label(f"{group.committed} of {group.total} committed").classes("tf-number tf-small")
            if group.failed:
                pill(Status(f"{group.failed} failed", Tone.BAD))
            if not group.open:
                pill(Status("not open yet", Tone.CALM))
        with ui.element("div").classes("tf-row tf-small"):
            for member in group.members:
                with ui.element("span").classes("tf-row").style("gap: 6px"):
                    ui.link(member.device, f"/device/{member.device}").classes("tf-link")
                    pill(member.standing)
            if group.more:
                ui.label(f"and {group.more} more").classes("tf-muted")
        ui.label(group.needs).classes("tf-muted tf-small")


def _cards(services: Services) -> tuple[RolloutCard, ...]:
    now_ms = services.fleet.clock()
    cards = [rollout_card(rollout, now_ms) for rollout in services.rollouts.list()]
    return tuple(sorted(cards, key=lambda card: not card.open)[:_SHOWN])
