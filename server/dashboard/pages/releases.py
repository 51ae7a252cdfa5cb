"""The end of the rollouts page: every release, where it runs, and the button that withdraws it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from fastapi import Request
from nicegui import Client, run, ui

from server.dashboard.services import Services
from server.dashboard.session import Sessions
from server.dashboard.theme import LOGIN, ask_why, heading, live, pill
from server.dashboard.views import Status, Tone, clock_time
from server.errors import ServerError
from server.fleet.fleet import Device
from server.registry.versions import Release

_SHOWN = 50
_NAMED = 12
_DETAIL = (
    "No device is offered it any more, and its rollouts are aborted. Devices that run it go on. This can't be undone."
)


@dataclass(frozen=True, slots=True)
class ReleaseRow:
    """One release of whatever target class. ``devices``: some of those that run it."""

    name: str
    published: str
    withdrawn: str
    by: str
    why: str
    running: int
    devices: tuple[str, ...]


def release_rows(releases: Sequence[Release], devices: Sequence[Device]) -> tuple[ReleaseRow, ...]:
    """Return the releases, newest first; the devices of those that were withdrawn are named."""
    running = Counter(device.release for device in devices)
    newest_first = sorted(releases, key=lambda one: (-one.registered_ms, -one.version, one.path))
    by_name = {release.name: release for release in reversed(newest_first)}
    names = list(dict.fromkeys(release.name for release in newest_first))[:_SHOWN]
    return tuple(
        ReleaseRow(
            name, clock_time(by_name[name].registered_ms), clock_time(by_name[name].withdrawn_ms),
            by_name[name].withdrawn_by, by_name[name].withdrawn_why, running[name],
            tuple(one.device for one in devices if one.release == name)[:_NAMED] if by_name[name].withdrawn_ms else (),
        )
        for name in names
    )  # fmt: skip


@dataclass(slots=True)
class Releases:
    """The list on one visitor's page."""

    services: Services
    sessions: Sessions
    request: Request
    client: Client

    def build(self) -> None:
        """Show the list; it is empty before the first release."""
        live(lambda: release_rows(self.services.versions.releases(), self.services.fleet.devices()), self._show)

    def _show(self, rows: tuple[ReleaseRow, ...]) -> None:
        if rows:
            heading("Releases")
        for row in rows:
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

    async def _ask(self, release: str) -> None:
        why = await ask_why(self.client, f"Withdraw {release}?", _DETAIL, "Withdraw")
        if why is None:
            return
        with self.client:
            if not self.sessions.is_open(self.request):
                ui.navigate.to(LOGIN)
                return
            try:
                running = await run.io_bound(self.services.withdrawal.withdraw, release, why)
            except ServerError as error:
                ui.notify(str(error), type="negative")
                return
            if running is not None:
                ui.notify(f"{release} withdrawn; it still runs on {len(running)} devices")
