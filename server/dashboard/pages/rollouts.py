"""``/rollouts``: how far each release is, and the buttons that steer it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from fastapi import Request, Response
from nicegui import Client, run, ui

from server.dashboard.pages.new_rollout import NewRollout
from server.dashboard.pages.releases import Releases
from server.dashboard.progress import GroupView, RolloutCard, rollout_card
from server.dashboard.services import Services
from server.dashboard.session import Sessions
from server.dashboard.theme import LOGIN, ask_name, choose, confirm, empty, frame, heading, live, meter, pill
from server.dashboard.views import Tone
from server.errors import ServerError
from server.rollout.model import Rollout
from server.rollout.resuming import Foresight, How

Result = TypeVar("Result")

_SHOWN = 20
_QUESTIONS = {
    "approve": ("Approve {release}?", "The first group is told at once; the next open when each reached its success."),
    "pause": ("Pause {release}?", "No further device is told; those under way go on."),
    "resume": ("Resume {release}?", ""),
    "abort": ("Abort {release}?", "Whoever has not committed goes back to what it ran before. This can't be undone."),
}
_WAYS = {
    How.RETRY: "Go on, and try again where it failed",
    How.REPLACE: "Let others try; the failures still count",
    How.TOLERATE: "Let the failures stand; they still count",
}
_BY = "an operator on the page"  # where it asks for no name
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
            Releases(services, sessions, request, ui.context.client).build()
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
            show_group(group, partial(self._skip, card, group.name) if group.may_skip else None)

    async def _ask(self, card: RolloutCard, action: str) -> None:
        question, detail = _QUESTIONS[action]
        question = question.format(release=card.release)
        if action == "resume":
            await self._resume(card, question)
            return
        seen = await self._try(partial(self.services.rollouts.foresee, card.id, action))
        if seen is not None and await confirm(
            self.client, question, f"{seen.text}. {detail}", action.capitalize()
        ):  # fmt: skip
            await self._do(partial(self._act(action), card.id))

    async def _resume(self, card: RolloutCard, question: str) -> None:
        """Offer the ways to go on, each with whom it tells; what would pause again at once is not offered."""
        found: dict[How, Foresight] = {}
        refusals = []
        for how in How:
            try:
                seen = await run.io_bound(partial(self.services.rollouts.foresee, card.id, "resume", how=how))
            except ServerError as error:
                refusals.append(str(error))
            else:
                if seen is not None and seen not in found.values():
                    found[how] = seen
        if not found:
            with self.client:
                ui.notify("; ".join(refusals[:1]), type="negative", multi_line=True)
            return
        choices = {how.value: f"{_WAYS[how]}: {seen.text}" for how, seen in found.items()}
        answer = await choose(self.client, question, choices, "Resume")
        if answer is not None:
            how, by = How(answer[0]), answer[1]
            await self._do(partial(self.services.rollouts.resume, card.id, how, by=by, only=found[how].tells))

    async def _skip(self, card: RolloutCard, group: str) -> None:
        seen = await self._try(partial(self.services.rollouts.foresee, card.id, "skip", group=group))
        if seen is None:
            return
        detail = f"It did not reach its success. {seen.text}. Your name is recorded."
        name = await ask_name(self.client, f"Skip {group} of {card.release}?", detail, "Skip group")
        if name is not None:
            await self._do(partial(self.services.rollouts.skip, card.id, group, by=name, only=seen.tells))

    async def _do(self, act: Callable[[], Rollout]) -> None:
        if not self.sessions.is_open(self.request):
            with self.client:
                ui.navigate.to(LOGIN)
            return
        await self._try(act)
        with self.client:
            self.look()

    async def _try(self, act: Callable[[], Result]) -> Result | None:
        try:
            return await run.io_bound(act)
        except ServerError as error:
            with self.client:
                ui.notify(str(error), type="negative", multi_line=True)
            return None

    def _act(self, action: str) -> Callable[[str], Rollout]:
        rollouts = self.services.rollouts
        acts: dict[str, Callable[..., Rollout]] = {
            "approve": rollouts.approve, "pause": rollouts.pause, "abort": rollouts.abort,
        }  # fmt: skip
        return partial(acts[action], by=_BY)


def show_group(group: GroupView, skip: Callable[[], Awaitable[None]] | None = None) -> None:
    """Show one group: its bar, its figures, its devices; a button where a person may ``skip`` it."""
    with ui.element("div").style("display: flex; flex-direction: column; gap: 6px; padding-top: 6px"):
        with ui.element("div").classes("tf-row"):
            ui.label(group.name).style("font-weight: 600; min-width: 90px")
            with ui.element("div").style("flex: 1; min-width: 120px"):
                meter(group.committed_ratio, Tone.BAD if group.failed or group.stuck else Tone.GOOD)
            ui.label(f"{group.committed} of {group.total} committed").classes("tf-number tf-small")
            for status in group.states:
                pill(status)
            if skip is not None:
                ui.button("Skip group", on_click=skip).props("no-caps dense outline").style("padding: 2px 10px")
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
