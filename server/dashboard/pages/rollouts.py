"""``/rollouts``: the progress of each rollout, and the buttons that control it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from nicegui import ui

from server.dashboard.pages.new_rollout import NewRollout
from server.dashboard.pages.releases import Releases
from server.dashboard.progress import GroupView, RolloutCard, rollout_card
from server.dashboard.services import Services
from server.dashboard.theme import and_more, ask_name, choose, confirm, empty, heading, live, meter, pill
from server.dashboard.views import Cut, Tone
from server.dashboard.visit import Pages, Visit
from server.errors import ServerError
from server.rollout.model import Rollout
from server.rollout.resuming import Foresight, How

_SHOWN = 20
_QUESTIONS = {
    "approve": (
        "Approve {release}?",
        "The first group is assigned it at once; the next opens when the one before reaches its success ratio.",
    ),
    "pause": ("Pause {release}?", "No further device is assigned it; those under way continue."),
    "resume": ("Resume {release}?", ""),
    "abort": ("Abort {release}?", "Whoever has not committed goes back to what it ran before. This can't be undone."),
}
_WAYS = {
    How.RETRY: "Go on, and try again where it failed",
    How.REPLACE: "Let others try; the failures still count",
    How.TOLERATE: "Let the failures stand; they still count",
}
_BY = "an operator on the page"  # for actions that ask for no name
_LOOKS = {"approve": "unelevated", "resume": "unelevated", "pause": "outline", "abort": "outline color=negative"}


def add_page(pages: Pages) -> None:
    """Add the page."""
    pages.add("/rollouts", "Rollouts", _build)


def _build(visit: Visit) -> None:
    NewRollout(visit).build()
    visit.look = live(lambda: _cards(visit.services), Steering(visit).show)
    Releases(visit).build()


@dataclass(frozen=True, slots=True)
class Steering:
    """The cards on one visitor's page, with the actions of their buttons."""

    visit: Visit

    def show(self, found: Cut[RolloutCard]) -> None:
        """Show the rollouts, open ones first."""
        if not found.rows:
            empty("No rollouts yet", "Publish a release with compressor publish; then make its rollout here.")
        for card in found.rows:
            with ui.element("section").classes(f"tf-card tf-verdict tf-verdict-{card.phase.tone}"):
                self._card(card)
        and_more(found.more, "see fleet-server rollouts list")

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
        seen = await self.visit.ask(partial(self.visit.services.rollouts.foresee, card.id, action))
        if seen is not None and await confirm(
            self.visit.client, question, f"{seen.text}. {detail}", action.capitalize()
        ):  # fmt: skip
            await self.visit.do(partial(self._act(action), card.id))

    async def _resume(self, card: RolloutCard, question: str) -> None:
        """Offer the ways to resume, each with the devices it assigns; not those that would pause again at once."""
        found = await self.visit.ask(partial(self._ways, card.id))
        if found is None:
            return
        choices = {how.value: f"{_WAYS[how]}: {seen.text}" for how, seen in found.items()}
        answer = await choose(self.visit.client, question, choices, "Resume")
        if answer is not None:
            how, by = How(answer[0]), answer[1]
            await self.visit.do(
                partial(self.visit.services.rollouts.resume, card.id, how, by=by, only=found[how].assigns)
            )

    def _ways(self, rollout: str) -> dict[How, Foresight]:
        """Return the ways to resume that differ in what they do.

        Raises:
            ServerError: If every way is refused: the reason of the first.
        """
        found: dict[How, Foresight] = {}
        refusals: list[ServerError] = []
        for how in How:
            try:
                seen = self.visit.services.rollouts.foresee(rollout, "resume", how=how)
            except ServerError as error:
                refusals.append(error)
            else:
                if seen not in found.values():
                    found[how] = seen
        if not found:
            raise refusals[0]
        return found

    async def _skip(self, card: RolloutCard, group: str) -> None:
        seen = await self.visit.ask(partial(self.visit.services.rollouts.foresee, card.id, "skip", group=group))
        if seen is None:
            return
        detail = f"It did not reach its success. {seen.text}. Your name is recorded."
        name = await ask_name(self.visit.client, f"Skip {group} of {card.release}?", detail, "Skip group")
        if name is not None:
            await self.visit.do(partial(self.visit.services.rollouts.skip, card.id, group, by=name, only=seen.assigns))

    def _act(self, action: str) -> Callable[[str], Rollout]:
        rollouts = self.visit.services.rollouts
        acts: dict[str, Callable[..., Rollout]] = {
            "approve": rollouts.approve, "pause": rollouts.pause, "abort": rollouts.abort,
        }  # fmt: skip
        return partial(acts[action], by=_BY)


def show_group(group: GroupView, skip: Callable[[], Awaitable[None]] | None = None) -> None:
    """Show one group: its bar, figures and devices, and a button if a person may ``skip`` it."""
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
            for member in group.members.rows:
                with ui.element("span").classes("tf-row").style("gap: 6px"):
                    ui.link(member.device, f"/device/{member.device}").classes("tf-link")
                    pill(member.standing)
            and_more(group.members.more)
        ui.label(group.needs).classes("tf-muted tf-small")


def _cards(services: Services) -> Cut[RolloutCard]:
    now_ms = services.fleet.clock()
    cards = [rollout_card(rollout, now_ms) for rollout in services.rollouts.list()]
    return Cut.of(sorted(cards, key=lambda card: not card.open), _SHOWN)
