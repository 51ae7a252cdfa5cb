"""The last section of a device's page: buttons to revoke or remove the device, with a confirmation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from nicegui import ui

from server.dashboard.theme import ask_why, heading
from server.dashboard.visit import Visit
from server.errors import UnknownDeviceError
from server.fleet.fleet import Device

_QUESTIONS = {
    "revoke": "Its credentials are refused from now on; it comes back only by a new claim. Its history stays.",
    "remove": "It is revoked, and what it was to run is forgotten: for hardware that is gone. Its history stays.",
}


@dataclass(frozen=True, slots=True)
class Leaving:
    """The two buttons on one visitor's page."""

    visit: Visit
    device: str

    def build(self) -> None:
        """Show the buttons of the actions that are still possible."""
        try:
            ended = self.visit.services.fleet.device(self.device).ended
        except UnknownDeviceError:
            return
        actions = {"": ("revoke", "remove"), "revoked": ("remove",)}.get(ended, ())
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
        end: dict[str, Callable[[str, str], Device]] = {"revoke": revocations.revoke, "remove": revocations.remove}
        if await self.visit.ask(partial(end[action], self.device, why)) is not None:
            with self.visit.client:
                ui.navigate.reload()
