"""The last section of the rollouts page: every release, the devices that run it, and the button to withdraw it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from nicegui import ui

from server.dashboard.theme import and_more, ask_why, heading, live, pill
from server.dashboard.views import Cut, Status, Tone, clock_time
from server.dashboard.visit import Visit
from server.fleet.fleet import Device
from server.registry.versions import Release

_SHOWN = 50
_NAMED = 12
_DETAIL = (
    "No device is offered it any more, and its rollouts are aborted. Devices that run it go on. This can't be undone."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRow:
    """One release, over all target classes. ``devices``: some of those that run it."""

    name: str
    published: str
    withdrawn: str
    by: str
    why: str
    running: int
    devices: tuple[str, ...]


def release_rows(releases: Sequence[Release], devices: Sequence[Device]) -> Cut[ReleaseRow]:
    """Return the releases, newest first; withdrawn ones with the devices that run them."""
    running = Counter(device.release for device in devices)
    newest_first = sorted(releases, key=lambda one: (-one.registered_ms, -one.version, one.path))
    by_name = {release.name: release for release in reversed(newest_first)}
    shown = Cut.of(tuple(dict.fromkeys(release.name for release in newest_first)), _SHOWN)
    rows = tuple(
        ReleaseRow(
            name=name,
            published=clock_time(by_name[name].registered_ms),
            withdrawn=clock_time(by_name[name].withdrawn_ms),
            by=by_name[name].withdrawn_by,
            why=by_name[name].withdrawn_why,
            running=running[name],
            devices=tuple(one.device for one in devices if one.release == name)[:_NAMED]
            if by_name[name].withdrawn_ms
            else (),
        )
        for name in shown.rows
    )
    return Cut(rows, shown.more)


@dataclass(slots=True)
class Releases:
    """The list on one visitor's page."""

    visit: Visit

    def build(self) -> None:
        """Show the list; it is empty before the first release."""
        services = self.visit.services
        live(lambda: release_rows(services.versions.releases(), services.fleet.devices()), self._show)

    def _show(self, found: Cut[ReleaseRow]) -> None:
        if found.rows:
            heading("Releases")
        for row in found.rows:
            with ui.element("div").classes("tf-card"), ui.element("div").classes("tf-row"):
                ui.label(row.name).style("font-weight: 600")
                ui.label(f"published {row.published}").classes("tf-muted tf-small")
                ui.label(f"runs on {row.running}").classes("tf-small")
                ui.element("div").classes("tf-grow")
                if row.withdrawn:
                    pill(
                        Status(
                            f"withdrawn {row.withdrawn}"
                            + (f" by {row.by}" if row.by else "")
                            + (f": {row.why}" if row.why else ""),
                            Tone.BAD,
                        )
                    )
                else:
                    button = ui.button("Withdraw", on_click=partial(self._ask, row.name))
                    button.props("no-caps dense outline color=negative").style("padding: 4px 14px")
                for device in row.devices:
                    ui.link(device, f"/device/{device}").classes("tf-link tf-small")
                and_more(row.running - len(row.devices) if row.devices else 0)
        and_more(found.more, "see fleet-server releases list")

    async def _ask(self, release: str) -> None:
        why = await ask_why(self.visit.client, f"Withdraw {release}?", _DETAIL, "Withdraw")
        if why is None:
            return
        running = await self.visit.ask(partial(self.visit.services.withdrawal.withdraw, release, why))
        if running is not None:
            with self.visit.client:
                ui.notify(f"{release} withdrawn; it still runs on {len(running)} devices")
