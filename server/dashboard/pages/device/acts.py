"""What a person can do about a device on its page, each with its button.

That is: ask it, accept its place, commission it again, name it, and end it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial

from nicegui import ui

from server.dashboard.commands import BENCHMARK, LOGS, CommandView, command_view
from server.dashboard.pages.device.head import mute_text
from server.dashboard.theme import ask_decision, ask_why, heading, live, pill
from server.dashboard.visit import Visit
from server.drift.places import NewPlace
from server.errors import UnknownDeviceError
from server.fleet.fleet import Device
from server.fleet.naming import DeviceNaming
from server.people import MAX_WHY
from wire.codec import Json

_VERBS: Mapping[str, tuple[str, Mapping[str, Json], float]] = {  # its button, arguments, and how long it may wait
    LOGS: ("Read its log", {"lines": 100}, 60.0), BENCHMARK: ("Time its release", {}, 180.0),
}  # fmt: skip


def _in_fleet(visit: Visit, device: str) -> Device | None:
    """Return the device, None if it has left the fleet or its row is gone."""
    try:
        known = visit.services.fleet.device(device)
    except UnknownDeviceError:
        return None
    return None if known.ended else known


@dataclass(frozen=True, slots=True)
class Asking:
    """What a person can ask the device now, on one visitor's page, with its last answers."""

    visit: Visit
    device: str

    def build(self) -> None:
        """Show the buttons and the answers, if the device can still be asked."""
        if _in_fleet(self.visit, self.device) is None:
            return
        with ui.element("section").classes("tf-card"):
            heading("Ask this device")
            for verb, (label, arguments, ttl_s) in _VERBS.items():
                with ui.element("div").classes("tf-row"):
                    button = ui.button(label, on_click=partial(self._ask, verb, arguments, ttl_s))
                    button.props("no-caps dense outline").style("padding: 4px 14px")
                    live(partial(self._last, verb), self._show)

    def _last(self, verb: str) -> CommandView | None:
        fleet = self.visit.services.fleet
        sent = fleet.last_command(self.device, verb)
        return command_view(sent, fleet.clock()) if sent is not None else None

    def _show(self, found: CommandView | None) -> None:
        if found is None:
            return
        pill(found.status)
        if found.note:
            ui.label(found.note).classes("tf-muted tf-small")
        if found.lines:
            ui.label("\n".join(found.lines)).classes("tf-mono tf-lines")

    async def _ask(self, verb: str, arguments: Mapping[str, Json], ttl_s: float) -> None:
        send = self.visit.services.fleet.send_command
        await self.visit.do(partial(send, self.device, verb, arguments, ttl_s, by=self.visit.by()))


_QUESTIONS = {
    "revoke": "Its credentials are refused from now on; it comes back only by a new claim. Its history stays.",
    "retire": "It is gone for good: revoked, in no rollout, judged no more. Its name, tags and history stay.",
    "remove": "It is revoked, and what it was to run is forgotten: for hardware that is gone. Its history stays.",
}


@dataclass(frozen=True, slots=True)
class Accepting:
    """The button by which a visitor accepts a place that training does not know, or takes that back."""

    visit: Visit
    device: str

    def build(self) -> None:
        """Show the button if the device has an open verdict on its place, or a person accepted that."""
        services = self.visit.services
        place = services.drift.places.of(self.device)
        accepted = services.drift.places.accepted(self.device)
        alarms = {one.id for one in services.drift.verdicts.open()}
        if place is not None and not place.decided_ms and place.verdict in alarms:
            risk = place.risk[:1].upper() + place.risk[1:]
            text = f"The training data has nothing like what this device sees. {risk}."
            self._card(text, "Accept this place", self._accept)
        elif accepted is not None and accepted.site == services.fleet.device(self.device).site:
            text = f"The training data has nothing like what this device sees; {accepted.decided_by} accepted it."
            self._card(text, "Take that back", self._withdraw)

    def _card(self, text: str, label: str, on_click: Callable[[], Awaitable[None]]) -> None:
        with ui.element("section").classes("tf-card"):
            heading("New place")
            ui.label(text)
            with ui.element("div").classes("tf-row"):
                ui.button(label, on_click=on_click).props("no-caps dense outline").style("padding: 4px 14px")

    async def _accept(self) -> None:
        question, text = f"Accept the place of {self.device}?", "The verdict ends, and what it sees there is its usual."
        said = await ask_decision(self.visit.client, question, text, "Accept")
        if said is not None:
            await self._decide(self.visit.services.drift.places.accept, *said)

    async def _withdraw(self) -> None:
        question = f"Take the acceptance of {self.device} back?"
        text = "With its next window its place is new again, and it is asked for labels."
        said = await ask_decision(self.visit.client, question, text, "Take back")
        if said is not None:
            await self._decide(self.visit.services.drift.places.withdraw, *said)

    async def _decide(self, decide: Callable[..., NewPlace], why: str, by: str) -> None:
        now_ms = self.visit.services.fleet.clock()
        decided = partial(decide, self.device, why, now_ms=now_ms, by=self.visit.by(by))
        await self.visit.do_and_reopen(decided)


@dataclass(frozen=True, slots=True)
class Recommissioning:
    """The button by which a visitor says that what stands before the device is another world now."""

    visit: Visit
    device: str

    def build(self) -> None:
        """Show the button of a device of the fleet."""
        if _in_fleet(self.visit, self.device) is None:
            return
        with ui.element("section").classes("tf-card"):
            heading("Commission again")
            ui.label(
                "After a repair, or another camera, lens or sensor, or a moved one: its alarms end, and its usual is "
                "learned anew from its next window on, as at an installation. What it saw before no longer counts."
            ).classes("tf-muted tf-small")
            with ui.element("div").classes("tf-row"):
                button = ui.button("Commission again", on_click=self._ask)
                button.props("no-caps dense outline").style("padding: 4px 14px")

    async def _ask(self) -> None:
        question, text = f"Commission {self.device} again?", "Say what changed before it; the reason is kept."
        said = await ask_decision(self.visit.client, question, text, "Commission again")
        if said is None:
            return
        services, (why, name) = self.visit.services, said
        now_ms, by = services.fleet.clock(), self.visit.by(name)
        begin = partial(services.drift.commissions.begin, self.device, why, now_ms=now_ms, by=by)
        await self.visit.do_and_reopen(begin)


@dataclass(frozen=True, slots=True)
class Calling:
    """The name and the tags of a device, as one visitor may change them."""

    visit: Visit
    device: str

    def build(self) -> None:
        """Show the fields, for a device of the fleet."""
        known = _in_fleet(self.visit, self.device)
        if known is None:
            return
        with ui.element("section").classes("tf-card"):
            heading("Name and tags")
            ui.label("The id stays. Rollouts and lists choose devices by tags.").classes("tf-muted tf-small")
            with ui.element("div").classes("tf-row"):
                title = ui.input("Name", value=known.title).props("dense outlined")
                tags = ui.input("Tags", value=" ".join(known.tags), placeholder="night indoor").props("dense outlined")
                save = partial(self._save, title, tags)
                ui.button("Save", on_click=save).props("no-caps dense outline").style("padding: 4px 14px")

    async def _save(self, title: ui.input, tags: ui.input) -> None:
        await self.visit.do_and_reopen(partial(self._note, title.value or "", tags.value or ""))

    def _note(self, title: str, tags: str) -> Device:
        services, by = self.visit.services, self.visit.by()
        naming = DeviceNaming(fleet=services.fleet, clock=services.fleet.clock)
        wanted, known = set(tags.replace(",", " ").split()), set(services.fleet.device(self.device).tags)
        naming.tag(self.device, wanted - known, known - wanted, by=by)
        return naming.rename(self.device, title, by=by)


_SPANS_MS: Mapping[str, int] = {
    "for 4 hours": 4 * 3_600_000, "for a day": 86_400_000, "for a week": 7 * 86_400_000, "until it is unmuted": 0,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Muting:
    """The button that mutes the device, or unmutes it, on one visitor's page."""

    visit: Visit
    device: str

    def build(self) -> None:
        """Show the button that is possible now, for a device of the fleet."""
        known = _in_fleet(self.visit, self.device)
        if known is None:
            return
        muted = known.is_muted(self.visit.services.fleet.clock())
        with ui.element("section").classes("tf-card"):
            heading("Mute")
            ui.label(
                f"Muted {mute_text(known)}." if muted else
                "For works on it, or a fault that is known: it raises no alert and no concern of its own. It is judged "
                "for drift and counts in rollouts as before, and the overview says that it is muted."
            ).classes("tf-muted tf-small")  # fmt: skip
            with ui.element("div").classes("tf-row"):
                if not muted:
                    span = ui.select(list(_SPANS_MS), value=next(iter(_SPANS_MS)), label="How long")
                    span.props("dense outlined").style("min-width: 180px")
                    why = ui.input("Why").props(f"dense outlined maxlength={MAX_WHY}")
                act = self._unmute if muted else partial(self._mute, span, why)
                button = ui.button("Unmute this device" if muted else "Mute this device", on_click=act)
                button.props("no-caps dense outline").style("padding: 4px 14px")

    async def _mute(self, span: ui.select, why: ui.input) -> None:
        for_ms, now_ms = _SPANS_MS[str(span.value)], self.visit.services.fleet.clock()
        until_ms, mutes = now_ms + for_ms if for_ms else 0, self.visit.services.mutes
        await self.visit.do_and_reopen(
            partial(mutes.mute, self.device, until_ms, str(why.value or ""), by=self.visit.by())
        )

    async def _unmute(self) -> None:
        await self.visit.do_and_reopen(partial(self.visit.services.mutes.unmute, self.device, by=self.visit.by()))


@dataclass(frozen=True, slots=True)
class Leaving:
    """The buttons on one visitor's page."""

    visit: Visit
    device: str

    def build(self) -> None:
        """Show the buttons of the actions that are still possible."""
        try:
            ended = self.visit.services.fleet.device(self.device).ended
        except UnknownDeviceError:
            return
        actions = {
            "": ("revoke", "retire", "remove"),
            "revoked": ("retire", "remove"),
            "retired": ("remove",),
        }.get(ended, ())
        if not actions:
            return
        with ui.element("section").classes("tf-card"):
            heading("Leave the fleet")
            with ui.element("div").classes("tf-row"):
                for action in actions:
                    button = ui.button(f"{action.capitalize()} this device", on_click=partial(self._ask, action))
                    button.props("no-caps dense outline color=negative").style("padding: 4px 14px")

    async def _ask(self, action: str) -> None:
        question = f"{action.capitalize()} {self.device}?"
        why = await ask_why(self.visit.client, question, _QUESTIONS[action], action.capitalize())
        if why is None:
            return
        revocations = self.visit.services.revocations
        end: dict[str, Callable[..., Device]] = {
            "revoke": revocations.revoke, "retire": revocations.retire, "remove": revocations.remove,
        }  # fmt: skip
        ended = partial(end[action], self.device, why, by=self.visit.by())
        await self.visit.do_and_reopen(ended)
