"""The form that creates a rollout: the release, and the number of canaries. The rollout then waits for approval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from nicegui import ui

from server.dashboard.theme import heading, keep_fresh
from server.dashboard.visit import Visit
from server.fleet.fleet import Device
from server.registry.versions import Release
from server.rollout import create
from server.rollout.outcome import devices
from server.rollout.selection import candidates


@dataclass(frozen=True, slots=True)
class ReleaseOffer:
    """A release that can be rolled out, and the number of devices for it."""

    release: str
    devices: int

    @property
    def text(self) -> str:
        """The entry in the list."""
        can = f"{devices(self.devices)} can take it" if self.devices else "no device needs it"
        return f"{self.release}: {can}"


def offers(releases: Sequence[Release], devices: Sequence[Device]) -> tuple[ReleaseOffer, ...]:
    """Return the releases that may be rolled out, newest first, with how many devices can run each and don't."""
    names = dict.fromkeys(
        release.name
        for release in sorted(releases, key=lambda one: (-one.registered_ms, -one.version))
        if not release.withdrawn_ms
    )
    return tuple(ReleaseOffer(name, len(candidates(devices, releases, name))) for name in names)


@dataclass(slots=True)
class NewRollout:
    """The form on one visitor's page."""

    visit: Visit

    def build(self) -> None:
        """Show the form once there is a release."""
        card = ui.element("div").classes("tf-card")
        with card:
            heading("New rollout")
            with ui.element("div").classes("tf-row"):
                release = ui.select({}, label="Release").props("dense outlined").style("min-width: 300px")
                canary = ui.number("Devices that go first", value=1, min=1, step=1, precision=0)
                canary.props("dense outlined").style("width: 180px")
                ui.button("Make rollout", on_click=lambda: self._make(release.value, canary.value)).props("unelevated")
            ui.label("Nothing is sent before you approve it. The others follow when the first have committed.").classes(
                "tf-muted tf-small"
            )

        def again() -> None:
            found = {one.release: one.text for one in self._offers()}
            card.set_visibility(bool(found))
            if found != release.options:
                release.set_options(found, value=release.value if release.value in found else next(iter(found), None))

        again()
        keep_fresh(again)

    def _offers(self) -> tuple[ReleaseOffer, ...]:
        services = self.visit.services
        return offers(services.versions.releases(), services.fleet.devices())

    async def _make(self, release: str | None, canary: float | None) -> None:
        wanted = create.Request(release=release or "", canary=None if canary is None else int(canary))
        made = await self.visit.do(partial(self.visit.services.rollouts.create, wanted))
        if made is not None:
            with self.visit.client:
                ui.notify(f"Rollout of {made.release} to {len(made.members)} devices made: approve it to begin")
